// List, create and change as an editor. Arguments: URL, e-mail address, password.
import assert from "node:assert/strict";
import { connect, type Schemas } from "api-client";

const [baseUrl, username, password] = process.argv.slice(2);
assert(baseUrl && username && password);
const login = await connect({ baseUrl }).POST("/v1/tokens", {
  body: { username, password },
  headers: { "Content-Type": "application/x-www-form-urlencoded" },
});
assert(login.data);
const client = connect({
  baseUrl,
  headers: { Authorization: `Bearer ${login.data.access_token}` },
});

const body = { name: "Mary Shelley" };
const params = { header: { "Idempotency-Key": "shelley" } };
const created = await client.POST("/v1/authors", { params, body });
const repeated = await client.POST("/v1/authors", { params, body });
assert(created.data);
const author: Schemas["AuthorRead"] = created.data;
assert.deepEqual(repeated.data, author);

const page = await client.GET("/v1/authors", { params: { query: { limit: 1 } } });
assert.deepEqual(page.data?.items.map((each) => each.id), [author.id]);

const path = { author_id: author.id };
const shown = await client.GET("/v1/authors/{author_id}", { params: { path } });
const header = { "If-Match": shown.response.headers.get("ETag") ?? "" };
const changed = await client.PATCH("/v1/authors/{author_id}", {
  params: { path, header },
  body: { name: "Mary W. Shelley" },
});
assert.equal(changed.data?.version, author.version + 1);

const book = await client.POST("/v1/books", {
  body: { title: "Lodore", author_ids: [author.id] },
});
assert.equal(book.data?.published_year, null);
const found = await client.GET("/v1/books", { params: { query: { q: "lodore", sort: "title" } } });
assert.deepEqual(
  found.data?.items.map((each) => [each.title, each.authors[0]?.name]),
  [["Lodore", "Mary W. Shelley"]],
);

const missing = await client.GET("/v1/authors/{author_id}", {
  params: { path: { author_id: author.id + 1 } },
});
const problem: Schemas["Problem"] | undefined = missing.error;
assert.deepEqual([problem?.status, problem?.title], [404, "Not Found"]);
assert(problem?.request_id);
