from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from app.logins.refusals import OtpRefused
from chassis.auth.passwords import Verified
from chassis.errors import TooManyRequests
from chassis.limits.policy import PolicyName
from chassis.resources import Resources

Bucket = tuple[PolicyName, str]


class Guess:
    """A wrong one is not given back."""

    wrong = False


class PasswordThrottle:
    """Verifies passwords that the clients of one network send. Wrong ones are limited: those for an
    account from this network (LIMITS_LOGIN_*), and those for it from all networks that it has not
    logged in from (LIMITS_ACCOUNT_*). So nobody can lock an account out of its usual networks.
    One-time passwords count with them, and have a tighter limit of their own (LIMITS_OTP_*).

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
        buckets = self._buckets(email, is_known_network)
        async with self._guess(buckets, account) as guess:
            verified = await self.passwords.verify(password, hash)
            guess.wrong = not verified.matches
        return verified

    @asynccontextmanager
    async def guessing_otp(
        self, email: str, *, account: int, is_known_network: bool
    ) -> AsyncIterator[None]:
        """Around the use of a one-time password, after the right password: so its limit can neither
        be used up nor seen without that. Raises TooManyRequests; OtpRefused within is a guess.
        """
        buckets = self._buckets(email, is_known_network)
        own = f"{email} {self.network}" if is_known_network else email
        async with self._guess([*buckets, ("otp_guesses", own)], account) as guess:
            try:
                yield
            except OtpRefused:
                guess.wrong = True
                raise

    def _buckets(self, email: str, is_known_network: bool) -> list[Bucket]:
        buckets: list[Bucket] = [("guesses", f"{email} {self.network}")]
        if not is_known_network:
            buckets.append(("account_guesses", email))
        return buckets

    @asynccontextmanager
    async def _guess(self, buckets: Sequence[Bucket], account: int | None) -> AsyncIterator[Guess]:
        taken: list[Bucket] = []
        guess = Guess()
        try:
            try:
                for bucket in buckets:
                    # One after the other: what the first refuses takes nothing from the second.
                    await self.limiter.consume(*bucket)
                    taken.append(bucket)
            except TooManyRequests:
                self.events.record("locked_out", account)
                raise
            yield guess
        finally:
            if not guess.wrong:
                for bucket in taken:
                    await self.limiter.refund(*bucket)
