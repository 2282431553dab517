// Writes through a failover with node-redis: `node node-redis.mjs PASSWORD SENTINEL…`. Says what ../redis-rs does.
import { createSentinel } from "redis";
import { play } from "./play.mjs";

const [password, ...hosts] = process.argv.slice(2);
const sentinel = createSentinel({
  name: "mymaster",
  sentinelRootNodes: hosts.map((host) => ({ host, port: 26379 })),
  nodeClientOptions: { password },
  replicaPoolSize: 1,
});
sentinel.on("error", (error) => console.error(`${error}`));
await sentinel.connect();

await play("node-redis", {
  write: (key, value) => sentinel.set(key, value),
  read: (key) => sentinel.get(key),
  keep: (keys) => sentinel.use((client) => client.mGet(keys)),
  master: async () => sentinel.getMasterNode()?.host,
  replica: async () => [...sentinel.getReplicaNodes().keys()].map((node) => node.host).sort().join(","),
});
