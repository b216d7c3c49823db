from flask.testing import FlaskClient
from tests.conftest import Account


def test_a_generate_request_is_accepted_as_a_job(client: FlaskClient, account: Account) -> None:
    answer = client.post(
        "/v1/images/generate", json={"modelId": "sketch", "prompt": "a hill"}, headers=account.headers
    )
    assert answer.status_code == 202, answer.text
    print(answer.json)
    got = client.get("/v1/images/jobs/" + answer.json["jobId"], headers=account.headers)
    assert got.json["status"] == "queued"
