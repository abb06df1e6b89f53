from fastapi import APIRouter

from app.authentication import CurrentSession, RequestThrottle
from app.dependencies import Confirmations, MailRequests
from app.schemas.accounts.mailed import (
    EmailChange,
    EmailConfirmation,
    MailAccepted,
    MailRequest,
    PasswordReset,
    Verification,
)
from app.schemas.user import UserRead
from chassis.http.dependencies import Idempotent
from chassis.http.openapi import problems
from chassis.http.routing import Route
from chassis.limits.route_limits import limited

router = APIRouter(prefix="/v1/users", tags=["users"], route_class=Route)


@router.post("/verify", responses=problems(409))
@limited("login")
async def verify_user(
    body: Verification,
    confirmations: Confirmations,
    throttle: RequestThrottle,
    idempotent: Idempotent,
) -> UserRead:
    """Verify the e-mail address of a registration."""
    return await confirmations.verify(body, throttle, idempotent)


@router.post("/verify/resend", status_code=202, responses=problems(409))
@limited("login")
async def resend_verification(
    body: MailRequest, mails: MailRequests, idempotent: Idempotent
) -> MailAccepted:
    """Ask for another mail to verify an address.

    It is sent if there is an account with this address, and it is unverified.
    """
    return await mails.verification(body.email, idempotent)


@router.post("/password-reset", status_code=202, responses=problems(409))
@limited("login")
async def request_password_reset(
    body: MailRequest, mails: MailRequests, idempotent: Idempotent
) -> MailAccepted:
    """Ask for a mail to set a new password.

    It is sent if there is an account with this address.
    """
    return await mails.reset(body.email, idempotent)


@router.post("/password-reset/confirm", responses=problems(409))
@limited("login")
async def reset_password(
    body: PasswordReset, confirmations: Confirmations, idempotent: Idempotent
) -> UserRead:
    """Set a new password, which ends all sessions."""
    return await confirmations.reset(body, idempotent)


@router.post("/me/email", status_code=202, responses=problems(401, 403, 409))
@limited("login")
async def request_email_change(
    body: EmailChange,
    account: CurrentSession,
    mails: MailRequests,
    throttle: RequestThrottle,
    idempotent: Idempotent,
) -> MailAccepted:
    """Ask for a mail to change your address.

    It is sent to the new address, which is that of the account once the link is used.
    """
    return await mails.new_address(account, body, throttle, idempotent)


@router.post("/me/email/confirm", responses=problems(409))
@limited("login")
async def confirm_email_change(
    body: EmailConfirmation, confirmations: Confirmations, idempotent: Idempotent
) -> UserRead:
    """Change the address of an account.

    The token of the mail says which, so that this needs no login.
    """
    return await confirmations.change_address(body, idempotent)
