from chassis.jobs.job import Job


class SendWelcome(Job):
    name = "send_welcome"

    user_id: int


# A token of a mail is made by its job, so that none is in the outbox.


class Register(Job):
    """A registration while USERS_VERIFY is on. The job makes the account, so that the request does
    the same whether or not there is one.
    """

    name = "register"

    email: str
    user_name: str
    password_hash: str


class SendVerification(Job):
    name = "send_verification"

    email: str


class SendReset(Job):
    name = "send_reset"

    email: str


class SendNewAddress(Job):
    """`state`: of the account when the change was asked for, after which it must not change."""

    name = "send_new_address"

    user_id: int
    email: str
    state: str


class SendAddressChanged(Job):
    """To the address that the account had."""

    name = "send_address_changed"

    email: str


class SendTotpChanged(Job):
    """The second factor of the account of this address was turned on or off."""

    name = "send_totp_changed"

    email: str
    enabled: bool
