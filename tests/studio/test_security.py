import pytest

TOKEN = "a-token-of-more-than-16-signs"
JOB = {"prompt": "a small red circle"}


@pytest.fixture
def guarded(start):
    return start(token=TOKEN)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer wrong-token-wrong-token"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": "Bearer"},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": f"Bearer {TOKEN[:-1]}"},
        {"Authorization": "Bearer \u00e9\u00e9".encode("latin-1")},
        {"Cookie": f"videogen_token={TOKEN}"},
        {"Cookie": "videogen_token=; videogen_token"},
        {"Cookie": "\x01;;;=="},
    ],
    ids=repr,
)
def test_without_the_token_every_path_is_unauthorized(guarded, headers):
    client = guarded.client()
    for path in ("/", "/static/studio.js", "/api", "/openapi.json", "/api/v1/model", "/api/v1/results", "/nothing"):
        response = client.get(path, headers=headers)
        assert response.status_code == 401, path
        assert "token" in response.json()["error"]
        assert response.headers["www-authenticate"] == "Bearer"
        assert "set-cookie" not in response.headers
    assert client.post("/api/v1/jobs", json=JOB, headers=headers).status_code == 401
    assert client.get("/?token=wrong", headers=headers).status_code == 401
    assert client.get("/healthz").status_code == 200


def test_with_the_token_in_a_header(guarded):
    client = guarded.client(headers={"Authorization": f"Bearer {TOKEN}"})
    guarded.make(client)


def test_a_page_opened_with_the_token_gets_a_cookie(guarded):
    client = guarded.client()
    response = client.get(f"/?lang=en&token={TOKEN}", follow_redirects=False)
    assert (response.status_code, response.headers["location"]) == (303, "/?lang=en")
    cookie = response.headers["set-cookie"]
    for part in ("HttpOnly", "SameSite=Strict", "Path=/"):
        assert part in cookie
    assert TOKEN not in cookie
    assert client.get("/").status_code == 200
    guarded.make(client)
    # The page alone accepts the token in its URL, and redirects; other URLs would end up in logs and histories.
    assert guarded.client().get(f"/api/v1/model?token={TOKEN}").status_code == 401


def test_with_a_token_any_host_name_is_accepted(guarded):
    client = guarded.client(headers={"Authorization": f"Bearer {TOKEN}", "Host": "studio.example"})
    assert client.get("/api/v1/model").status_code == 200
    assert client.post("/api/v1/jobs", json=JOB, headers={"Origin": "https://studio.example"}).status_code == 202
    assert client.post("/api/v1/jobs", json=JOB, headers={"Origin": "https://evil.example"}).status_code == 403


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860", "LOCALHOST", "[::1]:7860", "127.0.0.1"])
def test_without_a_token_loopback_names_are_accepted(studio, host):
    client = studio.client(headers={"Host": host})
    assert client.get("/api/v1/model").status_code == 200
    assert client.post("/api/v1/jobs", json=JOB, headers={"Origin": f"http://{host}"}).status_code == 202


def test_security_headers_of_every_response(studio, client):
    video = studio.make(client)["video"]
    for path in ("/", "/static/studio.js", "/api", "/api/v1/model", "/nothing", video):
        headers = client.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
        assert headers["cache-control"]
    assert client.get("/api/v1/model", headers={"Origin": "http://evil.example"}).headers.get("vary") is None


def test_a_browser_is_identified_by_a_cookie_that_the_server_issues(studio):
    client = studio.client()
    response = client.get("/")
    assert "HttpOnly" in response.headers["set-cookie"]
    assert "SameSite=Strict" in response.headers["set-cookie"]
    first = client.cookies["videogen_client"]
    assert "set-cookie" not in client.get("/").headers
    other = studio.client(cookies={"videogen_client": "of-my-own-making"})
    assert other.get("/").headers["set-cookie"].split(";")[0] != "videogen_client=of-my-own-making"
    assert client.cookies["videogen_client"] == first


def test_an_internal_error_does_not_reveal_its_message(studio, client, monkeypatch, caplog):
    def broken(*_):
        raise KeyError("secret")

    monkeypatch.setattr(studio.gallery, "page", broken)
    response = client.get("/api/v1/results")
    assert response.status_code == 500
    assert "secret" not in response.text
    assert response.json()["error"]
    assert "secret" in caplog.text
    assert response.headers["x-content-type-options"] == "nosniff"


def test_the_api_page_loads_nothing_from_other_hosts(client):
    description = client.get("/openapi.json").json()
    operations = [operation for path in description["paths"].values() for operation in path.values()]
    assert len(operations) >= 20
    assert all(operation["summary"] for operation in operations)
    page = client.get("/api")
    assert page.headers["content-type"].startswith("text/html")
    for path in description["paths"]:
        assert path in page.text
    assert "src=" not in page.text
    assert "http" not in page.text.replace("HTTP", "")
    assert client.get("/api.css").headers["content-type"].startswith("text/css")
