from chassis.auth.passwords import Verified
from chassis.errors import TooManyRequests
from chassis.limits.policy import PolicyName
from chassis.resources import Resources


class PasswordThrottle:
    """Verifies passwords that the clients of one network send. Wrong ones are limited: those for an
    account from this network (LIMITS_LOGIN_*), and those for it from all networks that it has not
    logged in from (LIMITS_ACCOUNT_*). So nobody can lock an account out of its usual networks.

    A token is taken from each bucket before the hash is computed, and given back unless the
    password was wrong: parallel attempts pass no more often than others.
    """

    def __init__(self, resources: Resources, network: str) -> None:
        self.limiter = resources["limiter"]
        self.passwords = resources["passwords"]
        self.events = resources["security"]
        self.network = network

    async def verify(
        self,
        email: str,
        password: str,
        hash: str | None,
        *,
        account: int | None,
        is_known_network: bool,
    ) -> Verified:
        """`is_known_network`: the account has logged in from it. Raises TooManyRequests."""
        buckets: list[tuple[PolicyName, str]] = [("guesses", f"{email} {self.network}")]
        if not is_known_network:
            buckets.append(("account_guesses", email))
        taken: list[tuple[PolicyName, str]] = []
        wrong = False
        try:
            for bucket in buckets:
                # One after the other: what the first refuses takes nothing from the second.
                await self.limiter.consume(*bucket)
                taken.append(bucket)
            verified = await self.passwords.verify(password, hash)
            wrong = not verified.matches
        except TooManyRequests:
            self.events.record("locked_out", account)
            raise
        finally:
            if not wrong:
                for bucket in taken:
                    await self.limiter.refund(*bucket)
        return verified
