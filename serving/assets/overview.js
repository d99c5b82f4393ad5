// Keeps the overview current: polls streams and views once a second while the page is visible.

import { getJson } from "./fetch_json.js";
import { pollWhileVisible } from "./shell.js";
import { showStream } from "./stream_section.js";
import { showView } from "./view_card.js";

async function round() {
  const [streams, views] = await Promise.all([getJson("/v1/streams"), getJson("/v1/views")]);
  for (const stream of streams.body.streams) {
    const section = document.getElementById(`stream-${stream.name}`);
    if (section) showStream(section, stream, streams.now);
  }
  const cards = views.body.views.map((view) => [document.getElementById(`view-${view.name}`), view]);
  const shown = await Promise.allSettled(cards.filter(([card]) => card).map(([card, view]) => showView(card, view, views.now)));
  const failed = shown.find((result) => result.status === "rejected");
  if (failed) throw failed.reason;
}

pollWhileVisible(round);
