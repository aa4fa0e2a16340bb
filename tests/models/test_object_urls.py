"""models/object_urls.py: the URL of a bucket becomes a storage; a wrong one is refused with the remedy."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tinysvc.core.errors import ConfigurationError
from tinysvc.models.object_urls import is_object_url, object_storage
from tinysvc.models.opening import open_store


@pytest.mark.parametrize(
    ("url", "shown", "client"),
    [
        ("s3://company", "s3://company", "S3Store"),
        ("s3://company/models/", "s3://company/models", "S3Store"),
        ("gs://company/a/b", "gs://company/a/b", "GCSStore"),
        ("az://container/models", "az://container/models", "AzureStore"),
    ],
)
def test_scheme_names_the_service(
    url: str, shown: str, client: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "company")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0")
    storage = object_storage(url)
    assert (storage.url, str(storage)) == (shown, f"<ObjectStorage {shown}>")
    assert type(storage._bucket).__name__ == client
    assert open_store(url).url == shown


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("ftp://host/models", "a folder or a URL with s3://, gs://, az://, not ftp://"),
        ("s3://key:secret@company/models", "without credentials or a query; they are variables: AWS_ACCESS_KEY_ID"),
        ("s3://company/models?region=x", "without credentials or a query"),
        ("s3://", "is s3://BUCKET/PREFIX"),
        ("gs://company//models", "GOOGLE_APPLICATION_CREDENTIALS"),
    ],
)
def test_wrong_url_is_refused(url: str, reason: str) -> None:
    with pytest.raises(ConfigurationError, match=reason) as caught:
        object_storage(url)
    assert "secret" not in str(caught.value)


def test_service_without_its_variables_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    with pytest.raises(ConfigurationError, match=r"az://container cannot be used: .*check AZURE_STORAGE_ACCOUNT_NAME"):
        object_storage("az://container")


def test_missing_library_is_reported_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ConfigurationError, match=r"obstore library .*pip install 'tinysvc\[models\]'"):
        object_storage("s3://company")


def test_profile_has_the_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[company]\naws_access_key_id = key\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    monkeypatch.setenv("AWS_PROFILE", "company")
    provider = object_storage("s3://models", {"AWS_PROFILE": "company"})._bucket.credential_provider
    assert provider is not None
    with pytest.raises(ConfigurationError, match="AWS_PROFILE is other, but The config profile"):
        object_storage("s3://models", {"AWS_PROFILE": "other"})
    assert object_storage("s3://models", {"AWS_PROFILE": "other", "AWS_ACCESS_KEY_ID": "key"})
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(ConfigurationError, match=r"profiles need the boto3 library .*pip install boto3"):
        object_storage("s3://models", {"AWS_PROFILE": "company"})


def test_folder_is_no_url() -> None:
    assert is_object_url("s3://company")
    assert not is_object_url("./models")
