// Why a client lags: in a word, in a colour, and what to do about it.

import { badge, muted } from "./parts.js";
import * as format from "./format.js";

const WHYS = {
  socket_full: [
    "slow reader",
    "bad",
    "The client or its network is too slow for this channel. Disconnect it, and it begins anew when it comes back; or give the channel the policy “latest”, which skips what is stale.",
  ],
  awaits_keyframe: [
    "needs a keyframe",
    "warn",
    "It goes on with the channel's next keyframe. If none comes, publish one.",
  ],
  replaying: ["catches up", "info", "It reads what it missed and is live again soon. There is nothing to do."],
  away: [
    "away",
    "quiet",
    "It is between two polls, or has lost its socket and may come back. It ends by itself if it does not.",
  ],
  behind: ["behind", "quiet", "It is just being written to. There is nothing to do."],
};

/** The badge of a row's lag. */
export const whyBadge = (lag) => {
  const [text, tone] = WHYS[lag.why] ?? [lag.why, "quiet"];
  return badge(text, tone, lag.text);
};

export const advice = (lag) => WHYS[lag.why]?.[2] ?? "";

/** How far it is behind, in short. */
export const lagText = (lag) => [format.duration(lag.seconds), " ", muted(`· ${format.count(lag.publications)}`)];
