// Starts `tinycore rules lsp` and connects it to the editor.
"use strict";

const { workspace } = require("vscode");
const { LanguageClient } = require("vscode-languageclient/node");

let client;

function activate() {
  const settings = workspace.getConfiguration("tinycore-rules");
  const counts = settings.get("counts");
  const args = ["rules", "lsp", "--stdio", ...(counts ? ["--counts", counts] : [])];
  const server = { command: settings.get("command") || "tinycore", args };
  const options = { documentSelector: [{ language: "tinycore-rules" }] };
  client = new LanguageClient("tinycore-rules", "tinycore rules", server, options);
  return client.start();
}

function deactivate() {
  return client ? client.stop() : undefined;
}

module.exports = { activate, deactivate };
