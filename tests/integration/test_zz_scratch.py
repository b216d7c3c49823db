from tests import rows
from werkzeug.test import EnvironBuilder, run_wsgi_app
def test_hosts(flask, database, account):
    for path in ("/v1/jobs", "/v1/images/generate"):
      for host in ["xn--a", "xn--mnchen-3ya.de", "EVIL.Example:8080"]:
        environ = EnvironBuilder(path, method="POST", json={"prompt":"a","modelId":"sketch"} if "gen" in path else {"prompt": "a"}, headers={**account.headers}).get_environ()
        environ["HTTP_HOST"] = host
        body, status, headers = run_wsgi_app(flask, environ)
        print(host, status, headers.get("Location"), b"".join(body)[-200:])
        assert int(status[:3]) < 500
