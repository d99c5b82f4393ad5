// Leaves the login page if there is a session: after a link from another site, browsers send its cookie only from here on.

import "./shell.js";
import { sessionToken } from "./fetch_json.js";

const failed = document.getElementById("error") !== null;
if (sessionToken() && !failed && !sessionStorage.getItem("trueup-returned")) {
  // Once only: the session may have ended on the server.
  sessionStorage.setItem("trueup-returned", "yes");
  location.replace("/");
}
document.querySelector("form").addEventListener("submit", () => sessionStorage.removeItem("trueup-returned"));
