"""The source files of a resource, by the templates of this folder."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from app.development.make_resource.fields import Field, camel, member, with_article, words


@dataclass(frozen=True)
class Resource:
    """`single` and `plural` as in `order` and `orders`; `is_owned`: each account has its own."""

    single: str
    plural: str
    fields: list[Field]
    is_owned: bool = False

    @property
    def path(self) -> str:
        return self.plural.replace("_", "-")

    @property
    def tag(self) -> str:
        return words(self.plural)

    @cached_property
    def files(self) -> dict[str, str]:
        """Templates by the paths of the files that they make."""
        return {
            f"app/models/{self.single}.py": "model",
            f"app/schemas/{self.single}.py": "schema",
            f"app/services/{self.plural}.py": "service",
            f"app/routers/{self.plural}.py": "router",
            f"tests/app/test_{self.plural}.py": "test",
        }

    def render(self, adders: dict[str, tuple[str, str]]) -> dict[str, str]:
        """For each resource that is referred to, `adders` has the import and the call that add one.

        The templates import all that they may need: ruff removes the rest.
        """
        environment = Environment(
            loader=FileSystemLoader(Path(__file__).parent / "templates"),
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            undefined=StrictUndefined,
            autoescape=False,  # noqa: S701 - this writes Python, not HTML
        )
        environment.filters |= {"member": member, "literal": repr}
        context = self._context() | {
            "adders": {name: call for name, (_, call) in adders.items()},
            "adder_imports": sorted({line for line, _ in adders.values()}),
        }
        return {
            file: environment.get_template(f"{template}.py.jinja").render(context)
            for file, template in self.files.items()
        }

    def _context(self) -> dict[str, Any]:
        listed = [field for field in self.fields if field.is_listed]
        unique = [field for field in self.fields if field.is_unique]
        refs = [field for field in self.fields if field.type == "ref"]
        changed = next((field for field in self.fields if field.type != "ref"), self.fields[0])
        a_title = with_article(words(self.single))
        names = " or ".join(f"this {words(field.name)}" for field in unique)
        return {
            "single": self.single,
            "plural": self.plural,
            "Single": camel(self.single),
            "Plural": camel(self.plural),
            "title": words(self.single).capitalize(),
            "title_plural": self.tag,
            "a_title": a_title,
            "one": f"one of your {self.tag}" if self.is_owned else a_title,
            "path": self.path,
            "owned": self.is_owned,
            "fields": self.fields,
            "types": {field.type for field in self.fields},
            "listed_types": {field.type for field in listed},
            "listed": listed,
            "unique": unique,
            "optional": any(field.is_optional for field in self.fields),
            "indexed": [field for field in listed if not field.is_unique],
            "refs": refs,
            "referred": {
                field.refers_to: [one for one in refs if one.refers_to == field.refers_to]
                for field in refs
            },
            "conflict": f"Another {words(self.single)} has {names}",
            "changed": changed,
            "changed_value": f'{self.plural.upper()}[2]["{changed.name}"]',
            "owner": "user_id, " if self.is_owned else "",
            "owner_typed": "user_id: int, " if self.is_owned else "",
            "account": "account: CurrentAccount, " if self.is_owned else "",
            "of_account": "account.user.id, " if self.is_owned else "",
            "refusals": "401, 403",
            "tags_of": self._tags_of,
            "read_row": self._read_row,
            "column": self._column,
            "camel": camel,
            "words": words,
        }

    def _column(self, field: Field) -> str:
        """The arguments of mapped_column; indexes of an owned resource begin with its owner."""
        arguments = [field.kind.column] if field.kind.column else []
        if field.is_unique and not self.is_owned:
            arguments.append("unique=True")
        elif field.type == "ref" or (field.is_indexed and not self.is_owned):
            arguments.append("index=True")
        return ", ".join(arguments)

    def _tags_of(self, id: str) -> str:
        if self.is_owned:
            return "_tag(user_id)"
        return f'"{self.plural}", f"{self.single}:{{{id}}}"'

    def _read_row(self, id: str, user_id: str = "user_id") -> str:
        return f"_read(self.session, {user_id}, {id})" if self.is_owned else f"self.get({id})"
