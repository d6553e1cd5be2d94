// Initiates the replica set of the key database, and makes its role and its users. It can be run
// again, and then sets privileges and passwords again.
//
// Run by mongosh over a loopback address: as long as there is no user, mongod lets that create the
// first one. MEMBER is this mongod's host and port, SECRETS the folder with the passwords.

const fs = require("fs");
const password = (name) => fs.readFileSync(`${process.env.SECRETS}/${name}`, "utf8").trim();
const admin = db.getSiblingDB("admin");

if (!admin.hello().setName) {
  rs.initiate({ _id: "rs0", members: [{ _id: 0, host: process.env.MEMBER }] });
}
while (!admin.hello().isWritablePrimary) sleep(100);

const secret = password("mongodb-admin");
try {
  admin.auth("admin", secret);
} catch (unknown) {
  admin.createUser({ user: "admin", pwd: secret, roles: ["root"] });
  admin.auth("admin", secret);
}

// What kms-server does there, and nothing else: it cannot change or remove a checkpoint.
const on = (collection, ...actions) => ({
  resource: { db: process.env.KEY_DATABASE ?? "kms", collection },
  actions,
});
const role = {
  privileges: [
    on("wrapped_scks", "find", "insert", "update", "remove"),
    on("audit_checkpoints", "find", "insert"),
    on("owner", "find", "insert", "update"),
    on("pause", "find", "insert", "update"),
  ],
  roles: [],
};
if (admin.getRole("kmsServer")) admin.updateRole("kmsServer", role);
else admin.createRole({ role: "kmsServer", ...role });

for (const [user, roles] of [
  ["kms", ["kmsServer"]],
  ["kms_backup", [{ role: "read", db: "kms" }]],
]) {
  const pwd = password(`mongodb-${user}`);
  if (admin.getUser(user)) admin.updateUser(user, { pwd, roles });
  else admin.createUser({ user, pwd, roles });
}
