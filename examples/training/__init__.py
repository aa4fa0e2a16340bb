"""Fit a neural network to an uploaded CSV: an hour of work that survives a crash, and can be cancelled. Open

http://127.0.0.1:8000/training in a browser, or:

    curl http://127.0.0.1:8000/training/spirals.csv > spirals.csv
    curl --data-binary @spirals.csv 'http://127.0.0.1:8000/training/trainings?epochs=300'

The response is 202 with the path of the job: GET shows its progress, DELETE stops it. Kill the server with `kill -9`
while it runs, and start it again: the training goes on after the last finished epoch. At its end, the network is
published as a version of the model `classifier`; with `&alias=production`, the example `inference` serves it at once.
Alone, at the root:

    python -m tinysvc examples/training/routes.py --jobs-page
    python -m tinysvc.models list classifier
    python -m tinysvc.models alias classifier production 1

    network   numpy only: the network, and one epoch of its training
    routes    the job, and the page
"""

from tinysvc import Service

from . import routes

service = Service(routes.service)
