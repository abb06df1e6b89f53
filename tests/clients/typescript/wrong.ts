// What the compiler must refuse: each line with an error is expected to have one.
import { connect } from "api-client";

const client = connect({ baseUrl: "" });
const user = await client.GET("/v1/users/me");
// @ts-expect-error: there may be an error instead
console.log(user.data.name);
// @ts-expect-error: no such property
console.log(user.data?.nmae);
// @ts-expect-error: no such path
await client.GET("/v1/nothing");
// @ts-expect-error: another type
await client.PATCH("/v1/users/me", { body: { name: 7 } });
