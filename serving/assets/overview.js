// What keeps the overview current? One round a second while it is looked at; every round asks the server anew.

import { ask } from "./ask.js";
import { showView } from "./card.js";
import { keepCurrent } from "./shell.js";
import { showStream } from "./stream_section.js";

async function round() {
  const [streams, views] = await Promise.all([ask("/v1/streams"), ask("/v1/views")]);
  for (const stream of streams.body.streams) {
    const section = document.getElementById(`stream-${stream.name}`);
    if (section) showStream(section, stream, streams.now);
  }
  const cards = views.body.views.map((view) => [document.getElementById(`view-${view.name}`), view]);
  const shown = await Promise.allSettled(cards.filter(([card]) => card).map(([card, view]) => showView(card, view, views.now)));
  const failed = shown.find((result) => result.status === "rejected");
  if (failed) throw failed.reason;
}

keepCurrent(round);
