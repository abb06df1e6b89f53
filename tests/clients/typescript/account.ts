// Register, log in and change one's name. Arguments: URL, e-mail address, password.
import assert from "node:assert/strict";
import { connect } from "api-client";

const [baseUrl, email, password] = process.argv.slice(2);
assert(baseUrl && email && password);
const anonymous = connect({ baseUrl });

const body = { email, name: "Ada", password };
const header = { "Idempotency-Key": "once" };
const registered = await anonymous.POST("/v1/users", { params: { header }, body });
// Where addresses are verified, it is another response, and a mail.
assert(registered.data && "name" in registered.data);
assert.equal(registered.data.name, "Ada");

const again = await anonymous.POST("/v1/users", { body });
assert.equal(again.error?.status, 409);

const login = await anonymous.POST("/v1/tokens", {
  body: { grant_type: "password", username: email, password },
  headers: { "Content-Type": "application/x-www-form-urlencoded" },
});
assert(login.data);
const client = connect({
  baseUrl,
  headers: { Authorization: `Bearer ${login.data.access_token}` },
});

const shown = await client.GET("/v1/users/me");
const params = { header: { "If-Match": shown.response.headers.get("ETag") ?? "" } };
const changed = await client.PATCH("/v1/users/me", { params, body: { name: "Grace" } });
assert.equal(changed.data?.name, "Grace");

const stale = await client.PATCH("/v1/users/me", { params, body: { name: "Edsger" } });
assert.equal(stale.error?.status, 412);

const invalid = await client.PATCH("/v1/users/me", { body: { name: "" } });
assert.deepEqual(invalid.error?.errors?.[0]?.loc, ["body", "name"]);
