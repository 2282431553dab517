// Writes through a failover with ioredis: `node ioredis.mjs PASSWORD SENTINEL…`. Says what ../redis-rs does.
import Redis from "ioredis";
import { play } from "./play.mjs";

const [password, ...hosts] = process.argv.slice(2);
const options = { sentinels: hosts.map((host) => ({ host, port: 26379 })), name: "mymaster", password, commandTimeout: 1000 };
const master = new Redis(options);
const replica = new Redis({ ...options, role: "slave" });
// Without a listener an error ends the process; what failed is counted where it was asked.
for (const client of [master, replica]) client.on("error", () => {});

await play("ioredis", {
  write: (key, value) => master.set(key, value),
  read: (key) => replica.get(key),
  keep: (keys) => master.mget(keys),
  master: async () => master.stream.remoteAddress,
  replica: async () => replica.stream.remoteAddress,
});
