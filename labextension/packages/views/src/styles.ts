/** All styles of the view as one text: they travel inside the bundle, as a widget has no other file. */

import uplot from "uplot/dist/uPlot.min.css";

import palette from "./basics/palette.css";
import view from "./basics/view.css";
import checkpoints from "./checkpoints/checkpoints.css";
import curves from "./curves/curves.css";
import head from "./run/head.css";
import panels from "./run/panels.css";

export const STYLES = [uplot, palette, view, head, curves, panels, checkpoints].join("\n");
