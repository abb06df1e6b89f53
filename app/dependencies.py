"""The services that a handler may ask for, one line each.

`on_session`: the service has one session, that of the request. `on_resources`: it opens its own, as
it works between transactions: it hashes passwords, asks other servers or fills the cache.
"""

from typing import Annotated

from fastapi import Depends

from app.services.accounts.administration import AdministrationService
from app.services.accounts.audit import AuditService
from app.services.accounts.deletion import DeletionService
from app.services.accounts.export import ExportService
from app.services.accounts.keys import KeyService
from app.services.accounts.logins import LoginService
from app.services.accounts.mailed.confirmations import ConfirmationService
from app.services.accounts.mailed.requests import MailRequestService
from app.services.accounts.sessions import SessionService
from app.services.accounts.totp import TotpService
from app.services.accounts.users import UserService
from chassis.http.dependencies import on_resources

Users = Annotated[UserService, Depends(on_resources(UserService))]
Keys = Annotated[KeyService, Depends(on_resources(KeyService))]
MailRequests = Annotated[MailRequestService, Depends(on_resources(MailRequestService))]
Confirmations = Annotated[ConfirmationService, Depends(on_resources(ConfirmationService))]
Logins = Annotated[LoginService, Depends(on_resources(LoginService))]
Audit = Annotated[AuditService, Depends(on_resources(AuditService))]
Deletion = Annotated[DeletionService, Depends(on_resources(DeletionService))]
Export = Annotated[ExportService, Depends(on_resources(ExportService))]
Administration = Annotated[AdministrationService, Depends(on_resources(AdministrationService))]
Totp = Annotated[TotpService, Depends(on_resources(TotpService))]
UserSessions = Annotated[SessionService, Depends(on_resources(SessionService))]
