/** What a front end's shell needs: the views, which are elements that take messages, and their styles. */

export { h } from "./basics/dom";
export { Browser } from "./checkpoints/browser";
export { View } from "./run/view";
export { STYLES } from "./styles";
