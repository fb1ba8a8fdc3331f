// Mailgun's own client for Node.js against the stub: mailgun_client.js URL KEY
// Prints one JSON object a call: what the client made of the answer.

const { createRequire } = require("node:module");
const peers = createRequire(`${process.env.PEERS}/`);
const FormData = peers("form-data");
const Mailgun = peers("mailgun.js").default ?? peers("mailgun.js");

const [url, key] = process.argv.slice(2);
const client = (key) => new Mailgun(FormData).client({ username: "api", key, url });
const right = { from: "me@example.com", to: ["a@example.net", "b@example.net"], subject: "Grüße", text: "ein Text" };

async function call(client, message) {
  try {
    console.log(JSON.stringify(await client.messages.create("example.com", message)));
  } catch (error) {
    console.log(JSON.stringify({ status: error.status, details: error.details }));
  }
}

(async () => {
  await call(client(key), right);
  await call(client(key), { ...right, attachment: [{ filename: "a.bin", data: Buffer.alloc(300000, 13) }] });
  await call(client(key), { to: ["a@example.net"], message: Buffer.from("Subject: x\r\n\r\nhello\r\n") });
  await call(client(key), { ...right, to: "nobody" });
  await call(client("wrong"), right);
})();
