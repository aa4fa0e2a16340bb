"""nginx, one process, sendfile: the files of $BENCH_FOLDER. Writes its configuration and becomes nginx."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

folder = Path(tempfile.mkdtemp())
(folder / "nginx.conf").write_text(f"""
daemon off; master_process off; pid {folder}/pid; error_log {folder}/errors;
events {{ worker_connections 1024; }}
http {{
  access_log off; sendfile on; tcp_nopush on; open_file_cache max=16; keepalive_requests 1000000;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{sys.argv[1]};
    location = /json {{ default_type application/json; return 200 '{{"message":"hello","answer":42}}'; }}
    location = /blob {{ default_type application/octet-stream; alias {os.environ["BENCH_FOLDER"]}/blob; }}
    location /files/ {{ alias {os.environ["BENCH_FOLDER"]}/; }}
  }}
}}
""")
os.execvp("nginx", ["nginx", "-c", str(folder / "nginx.conf")])
