import createClient, { type ClientOptions } from "openapi-fetch";
import type { components, paths } from "./schema.js";

/** The bodies of requests and responses: `Schemas["Problem"]`. */
export type Schemas = components["schemas"];

/** A client with a method for each of HTTP, whose paths, parameters and bodies are checked. */
export const connect = (options: ClientOptions) => createClient<paths>(options);
