"""Parts of other projects that we use though they promise nothing: an upgrade may change them.

Each is listed with the file that uses it, and fails here by its name when it is gone or takes other
arguments. The packages have an upper bound in requirements.in.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.metadata import packages_distributions
from itertools import chain
from typing import Any

import pytest

from tests.process import ROOT

HTTP = "uvicorn.protocols.http.httptools_impl"
PROTOCOL, CYCLE = f"{HTTP}:HttpToolsProtocol", f"{HTTP}:RequestResponseCycle"
SERVER, WORKER = "uvicorn.server:Server", "uvicorn_worker:UvicornWorker"
BATCH = "alembic.operations.batch:ApplyBatchImpl"
SQLITE = "alembic.ddl.sqlite:SQLiteImpl"
FIELD, DEPENDANT = "fastapi._compat:ModelField", "fastapi.dependencies.models:Dependant"
CONNECTION = "redis.asyncio.connection:AbstractConnection"

# "module:attribute", with the arguments where we call or override it.
HOOKS = {
    "chassis/server/pipelining.py": [
        f"{PROTOCOL}._unset_keepalive_if_required()",
        f"{PROTOCOL}._should_upgrade()",
        f"{PROTOCOL}.connection_lost(exc)",
        f"{PROTOCOL}.data_received(data)",
        f"{PROTOCOL}.on_headers_complete()",
        f"{PROTOCOL}.on_response_complete()",
        f"{PROTOCOL}.resume_writing()",
        *(f"{PROTOCOL}.{name}" for name in ("cycle", "flow", "headers", "loop", "parser")),
        *(f"{PROTOCOL}.{name}" for name in ("pipeline", "scope", "transport")),
        *(f"{CYCLE}.{name}" for name in ("body", "message_event", "more_body", "scope")),
        f"{CYCLE}.response_complete",
        "uvicorn.protocols.http.flow_control:FlowControl.pause_reading()",
        "uvicorn.protocols.http.flow_control:FlowControl.resume_reading()",
        "uvicorn.protocols.http.flow_control:FlowControl.write_paused",
    ],
    "chassis/server/http_protocol.py": [
        f"{PROTOCOL}._start_asgi_task(cycle, app)",
        f"{PROTOCOL}.connection_made(transport)",
        f"{PROTOCOL}.pause_writing()",
        *(f"{PROTOCOL}.{name}" for name in ("app_state", "client", "connections", "server_state")),
        *(f"{CYCLE}.{name}" for name in ("disconnected", "keep_alive", "transport")),
    ],
    "chassis/server/whole_response.py": [
        f"{HTTP}:STATUS_LINE",
        *(f"{CYCLE}.{name}" for name in ("default_headers", "flow", "on_response")),
        *(f"{CYCLE}.{name}" for name in ("response_started", "waiting_for_100_continue")),
    ],
    "chassis/server/worker.py": [
        f"{SERVER}.shutdown(sockets)",
        f"{SERVER}.handle_exit(sig, frame)",
        *(f"{SERVER}.{name}" for name in ("config", "force_exit", "lifespan", "server_state")),
        *(f"{SERVER}.{name}" for name in ("servers", "should_exit", "started")),
        "uvicorn.server:ServerState.default_headers",
        "uvicorn.server:ServerState.total_requests",
        "uvicorn.lifespan.on:LifespanOn.state",
        "uvicorn.config:Config.callback_notify",
        "uvicorn.config:Config.http_protocol_class",
        f"{WORKER}._serve()",
        f"{WORKER}.callback_notify()",
        f"{WORKER}.CONFIG_KWARGS",
        "gunicorn.arbiter:Arbiter.WORKER_BOOT_ERROR",
        "gunicorn.glogging:Logger.setup(cfg)",
        "gunicorn.workers.base:Worker.notify()",
        "gunicorn.workers.base:Worker.ppid",
    ],
    "gunicorn_config.py": ["gunicorn.arbiter:Arbiter.WORKERS"],
    "chassis/telemetry/histogram.py": [
        "prometheus_client:Histogram._child_samples()",
        "prometheus_client:Histogram._metric_init()",
        *(f"prometheus_client:Histogram.{name}" for name in ("_buckets", "_sum", "_upper_bounds")),
    ],
    "chassis/telemetry/worker_slots.py": [
        "prometheus_client.values:ValueClass",
        "prometheus_client.values:MultiProcessValue(process_identifier)",
        "prometheus_client.values:MutexValue._value",
        "prometheus_client.mmap_dict:MmapedDict.write_value(key, value, timestamp)",
    ],
    "chassis/files/routes.py": [
        "starlette.responses:FileResponse._parse_range_header(http_range, file_size)",
    ],
    "chassis/http/json_body.py": [
        "fastapi._compat",
        f"{FIELD}(field_info, name, mode, config)",
        f"{FIELD}._type_adapter",
        f"{FIELD}.validate(value, values, loc)",
        f"{DEPENDANT}.body_params",
        f"{DEPENDANT}.dependencies",
    ],
    "chassis/http/parameters.py": [
        "fastapi._compat",
        f"{FIELD}.alias",
        f"{FIELD}.default",
        f"{FIELD}.field_info",
        f"{DEPENDANT}.path_params",
        f"{DEPENDANT}.query_params",
    ],
    "chassis/http/application.py": [
        "fastapi:FastAPI.build_middleware_stack()",
        "fastapi.middleware.asyncexitstack:AsyncExitStackMiddleware",
    ],
    "chassis/http/routing.py": [
        f"{DEPENDANT}.call",
        "fastapi.dependencies.models:_is_async_gen_callable(call)",
        "fastapi.dependencies.models:_is_gen_callable(call)",
        "fastapi.routing:APIRoute.body_field",
        "fastapi.routing:APIRoute.dependant",
        "fastapi.routing:APIRoute.get_route_handler()",
        "starlette.routing:Route.handle(scope, receive, send)",
        "starlette.routing:Route.matches(scope)",
    ],
    "chassis/upstream/connections.py": ["aiohttp:ClientSession._retry_connection"],
    "chassis/settings/sources.py": ["pydantic_settings:EnvSettingsSource.env_vars"],
    "chassis/database/timing.py": [
        "sqlalchemy:AsyncAdaptedQueuePool._dec_overflow()",
        "sqlalchemy:AsyncAdaptedQueuePool._pool",
        "sqlalchemy:AsyncAdaptedQueuePool.connect()",
        "sqlalchemy.engine.default:DefaultDialect.do_commit(dbapi_connection)",
    ],
    "chassis/database/driver_query.py": [
        "sqlalchemy.sql.compiler:SQLCompiler.binds",
        "sqlalchemy.sql.compiler:SQLCompiler.positiontup",
        "sqlalchemy.sql.compiler:SQLCompiler.post_compile_params",
    ],
    "chassis/database/read_session.py": [
        "sqlalchemy:Engine._has_events",
        "sqlalchemy:Engine.logger",
        "sqlalchemy.util:greenlet_spawn",
    ],
    "chassis/redis/shared_connection.py": [
        "redis.asyncio:ConnectionPool.make_connection()",
        f"{CONNECTION}.disconnect(nowait)",
        f"{CONNECTION}.read_response(timeout)",
        f"{CONNECTION}.send_packed_command(command, check_health)",
    ],
    "chassis/redis/server.py": [
        f"{CONNECTION}.connect()",
        f"{CONNECTION}.disconnect(nowait)",
        f"{CONNECTION}.is_connected",
        "redis.asyncio.connection:parse_url(url)",
    ],
    "chassis/settings/redis_urls.py": ["redis.asyncio.connection:parse_url(url)"],
    "chassis/migrations/sqlite_ddl.py": [
        f"{SQLITE}.prep_table_for_batch(batch_impl, table)",
        f"{SQLITE}.drop_table(table)",
        f"{SQLITE}.rename_table(old_table_name, new_table_name, schema)",
        f"{BATCH}.column_transfers",
        f"{BATCH}.new_table",
    ],
    "chassis/migrations/mariadb_ddl.py": [
        "alembic.ddl.mysql:MariaDBImpl._exec(construct, execution_options, multiparams, params)",
    ],
    "chassis/development/make_migration/declared.py": [
        f"{SQLITE}.create_table(table)",
        f"{SQLITE}.add_column(table_name, column)",
    ],
    "chassis/development/make_migration/render.py": [
        "alembic.autogenerate.render:_repr_type(type_, autogen_context)",
    ],
}
# Documented, though they begin with an underscore or are set in another project's module.
PUBLIC = {"_mapping", "_current_frames", "_exit", "MAX_IMAGE_PIXELS", "MAX_TEXT_CHUNK"}
# Of the class that MultiProcessValue returns: no name leads to it.
OF_A_LOCAL_CLASS = {"_file", "_key"}

EVERY = [(file, hook) for file, hooks in HOOKS.items() for hook in hooks]


@pytest.mark.parametrize(("file", "hook"), EVERY, ids=[f"{hook} in {file}" for file, hook in EVERY])
def test_what_we_use_is_there(file: str, hook: str):
    path, call, arguments = hook.rstrip(")").partition("(")
    owner, name, found = resolve(path)

    assert found is not None or is_set_by(owner, name), f"{path} is gone: {file} uses it"
    if call:
        known = inspect.signature(found).parameters
        used = set(arguments.split(", ")) - {""}
        required = {
            each.name
            for each in known.values()
            if each.default is each.empty
            and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
        }
        assert required - {"self"} <= used <= known.keys(), f"{file} calls {hook}, not {known}"


def resolve(path: str) -> tuple[Any, str, Any]:
    """The owner of an attribute, its name, and its value where the owner has it."""
    module, _, names = path.partition(":")
    owner: Any = None
    value: Any = import_module(module)
    name = ""
    for name in names.split(".") if names else ():
        owner, value = value, getattr(value, name, None)
    return owner, name, value


def is_set_by(owner: Any, name: str) -> bool:
    """Whether only the objects of a class have the attribute."""
    classes = [each for each in owner.__mro__ if each is not object]
    texts = [inspect.getsource(each) for each in classes]
    return any(re.search(rf"\bself\.{name}\b|^    {name}: ", text, re.MULTILINE) for text in texts)


def test_packages_have_an_upper_bound():
    lines = (ROOT / "requirements.in").read_text()
    bounded = {name.lower() for name in re.findall(r"^([\w-]+)<", lines, re.MULTILINE)}
    distributions = packages_distributions()

    used = {re.split("[.:]", hook)[0] for _, hook in EVERY}

    assert bounded == {distributions[name][0].replace("_", "-").lower() for name in used}


def test_what_we_use_is_listed():
    listed = {
        (file, re.split("[.:]", hook.partition("(")[0])[-1]) if ":" in hook else (file, hook)
        for file, hook in EVERY
    }
    used = set(chain(underscored(), overridden(), replaced()))

    assert {one for one in used if one[1] not in PUBLIC | OF_A_LOCAL_CLASS} <= listed
    assert len(used) > 10


@cache
def sources() -> dict[str, ast.Module]:
    files = chain(*((ROOT / name).rglob("*.py") for name in ("app", "chassis", "migrations")))
    return {
        str(file.relative_to(ROOT)): ast.parse(file.read_text("utf-8"))
        for file in (*files, ROOT / "gunicorn_config.py")
    }


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def is_foreign(module: str) -> bool:
    return module.partition(".")[0] not in {"app", "chassis", *sys.stdlib_module_names}


def underscored() -> Iterator[tuple[str, str]]:
    """Private names that a file imports from others, or uses and does not define."""
    for file, tree in sources().items():
        own = set(defined(tree))
        for node in ast.walk(tree):
            match node:
                case ast.ImportFrom(module=str(module), names=names) if is_foreign(module):
                    if any(map(is_private, module.split("."))):
                        yield file, module
                    yield from ((file, alias.name) for alias in names if is_private(alias.name))
                case ast.Attribute(attr=name) if is_private(name) and name not in own:
                    yield file, name


def defined(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name


def overridden() -> Iterator[tuple[str, str]]:
    """Private methods of ours that the class of another project has as well."""
    for file, tree in sources().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and node.bases and not file.startswith("migrations"):
                made = getattr(import_module(file.removesuffix(".py").replace("/", ".")), node.name)
                foreign = [base for base in made.__mro__ if is_foreign(base.__module__)]
                names = {each.name for each in node.body if hasattr(each, "name")}
                for name in filter(is_private, names):
                    if any(name in vars(base) for base in foreign):
                        yield file, name


def replaced() -> Iterator[tuple[str, str]]:
    """Attributes of another project's module that are set, and classes of objects that are."""
    for file, tree in sources().items():
        nodes = list(ast.walk(tree))
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom | ast.Import)]
        modules = {
            alias.asname or alias.name
            for node in imports
            if is_foreign(getattr(node, "module", None) or node.names[0].name)
            for alias in node.names
        }
        for node in nodes:
            match node:
                case ast.Attribute(value=ast.Name(id=name), attr=attr, ctx=ast.Store()):
                    if name in modules or attr == "__class__":
                        yield file, attr
