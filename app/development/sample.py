"""The sample data of `python -m app serve`: an editor, where there is no account."""

from contextlib import ExitStack

from sqlalchemy import select

from app.development import catalogue  # sample
from app.models import User
from app.schemas.user import Role, UserCreate
from app.services.accounts.users import UserService
from app.settings import Settings
from chassis.development.serve import Filled, Sample
from chassis.resources import open_resources

EDITOR = UserCreate(email="editor@example.com", name="Editor", password="development")  # noqa: S106
PATH = ""
PATH = catalogue.PATH  # sample


def start_servers(stack: ExitStack) -> list[str]:
    lines: list[str] = []
    lines += catalogue.start_sellers(stack)  # sample
    return lines


async def fill(settings: Settings) -> Filled:
    lines: list[str] = []
    lines += await catalogue.fill(settings)  # sample
    async with open_resources(settings) as resources:
        async with resources["sessions"].read() as session:
            has_users = await session.scalar(select(User.id).limit(1)) is not None
            of_editor = select(User.password_hash).where(User.email == EDITOR.email)
            hash = await session.scalar(of_editor)
        if not has_users:
            users = UserService(resources)
            await users.create(EDITOR, Role.EDITOR, any_password=True, verified=True)
            lines.append(
                f"Editor     {EDITOR.email}, password {EDITOR.password}, as there was nobody"
            )
        elif not (await resources["passwords"].verify(EDITOR.password, hash)).matches:
            return Filled(lines, None)
    return Filled(lines, (EDITOR.email, EDITOR.password))


SAMPLE = Sample("app", PATH, start_servers, fill)
