"""What Schemathesis loads to be somebody: every request gets a token, public ones too.

After a 401, of which a generated logout is the usual cause, it logs in again and repeats the
request.
"""

import os
from typing import Any

import httpx2 as httpx
import schemathesis
from schemathesis import AuthContext, Case, HookContext


@schemathesis.hook
def before_load_schema(context: HookContext, raw_schema: dict[str, Any]) -> None:
    """It knows no OAuth2, so where a key is an alternative it would take out the key alone, and
    call a request with a token one without authentication.
    """
    schemes = raw_schema["components"]["securitySchemes"]
    schemes["APIKey"] = {"type": "http", "scheme": "bearer"}


@schemathesis.auth()
class Bearer:
    def get(self, case: Case[Any], context: AuthContext) -> str:
        form = {
            "grant_type": "password",
            "username": os.environ["CONTRACT_USERNAME"],
            "password": os.environ["CONTRACT_PASSWORD"],
        }
        response = httpx.post(f"{os.environ['CONTRACT_URL']}/v1/tokens", data=form)
        return str(response.raise_for_status().json()["access_token"])

    def set(self, case: Case[Any], token: str, context: AuthContext) -> None:
        case.headers["Authorization"] = f"Bearer {token}"
