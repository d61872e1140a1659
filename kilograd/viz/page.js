"use strict";

// One graph drawing: nested groups with finished layouts, shown as SVG.
//
// The script makes no layout. Each group brings the places of its children; opening a child group
// stretches its parent's layout (see `stretch`) so that everything beside and below moves away.
// From that, `layOut` makes the scene: absolute boxes and curves of all that is visible. `paint`
// turns the part of the scene near the viewport into SVG, and the camera moves over it.

// ------------------------------------------------------------------------------------- constants

const HEADER = 32; // height of an open group's title line
const PAD = 16; // room around an open group's inner layout
const MOST_AIR = 96; // before and behind a wide open group, for the curves
const READABLE = 0.5; // zoom below which text is too small to read and is left out
const OVERVIEW = 0.12; // zoom below which a whole graph is a blur and no first view
const MOST_BLOCKS = 3000; // "open all" stops about here
const LARGEST_ZOOM = 4;
const SVG = "http://www.w3.org/2000/svg";

const KINDS = {
  op: "Operation",
  parameter: "Parameter",
  data: "Data",
  constant: "Constant",
  random: "Random",
  output: "Output",
  gradient: "Gradient",
  state: "State",
};
const PHASES = { forward: "Forward", backward: "Backward", update: "Update" };

// ----------------------------------------------------------------------------------- small things

const byId = (id) => document.getElementById(id);
const mix = (a, b, t) => a + (b - a) * t;
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
const round = (value) => Math.round(value * 10) / 10;
const still = () => matchMedia("(prefers-reduced-motion: reduce)").matches;
const narrow = () => stage.clientWidth < 640;

function svg(name, attributes, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

function html(name, attributes, ...children) {
  const element = document.createElement(name);
  Object.assign(element, attributes);
  element.append(...children);
  return element;
}

/** Calls `frame(t)` with eased t from 0 to 1 until cancelled; once, with 1, without motion. */
function animate(duration, frame) {
  if (still()) {
    frame(1);
    return () => {};
  }
  const start = performance.now();
  let request = requestAnimationFrame(function tick(now) {
    const t = clamp((now - start) / duration, 0, 1);
    frame(1 - (1 - t) ** 3);
    if (t < 1) request = requestAnimationFrame(tick);
  });
  return () => cancelAnimationFrame(request);
}

// ------------------------------------------------------------------------------------------ model

const data = JSON.parse(byId("data").textContent);
const alongY = data.direction !== "LR";
const main = alongY ? 1 : 0; // the coordinate in which values flow
const items = new Map(); // every block and group that lies in the root, by id
const root = readItem(data.root, null, 0);
const blocks = [...items.values()].filter((item) => !item.isGroup);
const steps = blocks
  .filter((block) => Number.isFinite(block.order))
  .sort((a, b) => a.order - b.order);
steps.forEach((block, index) => (block.step = index + 1));
summarise(root);

/** Reads a block or group with all that is in it; the order of `items` is the order of the data. */
function readItem(id, parent, depth) {
  const isGroup = Object.hasOwn(data.groups, id);
  const item = { ...(isGroup ? data.groups : data.blocks)[id], id, parent, depth, isGroup };
  items.set(id, item);
  if (isGroup) {
    item.openness = item.open || parent === null ? 1 : 0; // in between while it opens or closes
    item.boxes = new Map(Object.entries(item.layout.boxes));
    item.ports = new Map(Object.entries(item.layout.ports));
    item.edges = item.layout.edges.map((edge) => ({
      ...edge,
      value: edge.from_value,
      group: item,
    }));
    item.edgesFrom = Map.groupBy(item.edges, (edge) => edge.from);
    item.edgesTo = Map.groupBy(item.edges, (edge) => edge.to);
    item.children = item.children.map((child) => readItem(child, item, depth + 1));
  }
  return item;
}

/** What a closed group shows of its blocks: their phase if they agree, the hottest, the steps. */
function summarise(item) {
  if (!item.isGroup) {
    item.blocks = [item];
    return;
  }
  item.children.forEach(summarise);
  item.blocks = item.children.flatMap((child) => child.blocks);
  const phases = new Set(
    item.blocks.filter((block) => block.kind === "op").map((block) => block.phase),
  );
  if (phases.size > 0) item.phase = phases.size === 1 ? [...phases][0] : "mixed";
  item.heat = item.blocks.reduce((most, block) => Math.max(most, block.heat ?? -1), -1);
  if (item.heat < 0) item.heat = undefined;
  item.steps = item.blocks
    .filter((block) => block.step)
    .map((block) => block.step)
    .sort((a, b) => a - b);
}

const isOpen = (item) => item.isGroup && item.openness > 0;

function* ancestors(item) {
  for (let group = item.parent; group; group = group.parent) yield group;
}

/** The item itself, or the outermost closed group that hides it. */
function visibleStandIn(item) {
  let shown = item;
  for (const group of ancestors(item)) if (!isOpen(group)) shown = group;
  return shown;
}

/** The edges through which a value reaches the start of `edge`, across the borders of groups. */
function edgesBefore(edge) {
  const { group, from, value } = edge;
  if (group.ports.has(from)) {
    return (group.parent?.edgesTo.get(group.id) ?? []).filter((outer) => outer.value === value);
  }
  return items.get(from).edgesTo?.get(`out:${value}`) ?? [];
}

/** The edges through which a value goes on from the end of `edge`. */
function edgesAfter(edge) {
  const { group, to, value } = edge;
  if (group.ports.has(to)) {
    return (group.parent?.edgesFrom.get(group.id) ?? []).filter((outer) => outer.value === value);
  }
  return items.get(to).edgesFrom?.get(`in:${value}`) ?? [];
}

/** All edges reached from `edges` by `next`; a Set visits what is added while it is walked. */
function follow(edges, next) {
  const reached = new Set(edges);
  for (const edge of reached) for (const more of next(edge)) reached.add(more);
  return reached;
}

const edgesInto = (item) => follow(item.parent?.edgesTo.get(item.id) ?? [], edgesBefore);
const edgesOutOf = (item) => follow(item.parent?.edgesFrom.get(item.id) ?? [], edgesAfter);

function inputsOf(item) {
  const direct = item.parent?.edgesTo.get(item.id) ?? [];
  return [...new Set(direct.map((edge) => edge.value))].map((id) => items.get(id)).filter(Boolean);
}

/** Where the item's values end up: blocks, or groups whose inside says no more about it. */
function outputsOf(item) {
  const ends = [...edgesOutOf(item)].filter((edge) => !edge.group.ports.has(edge.to));
  const last = ends.filter((edge) => edgesAfter(edge).length === 0);
  return [...new Set(last.map((edge) => items.get(edge.to)))];
}

// --------------------------------------------------------------------------------------- geometry

/**
 * The map x → x' of one axis that gives every span its new size and leaves no distance smaller.
 *
 * Between the spans' ends it is linear with slope ≥ 1, so order is kept and what did not overlap
 * does not. The places of the ends are a longest path: from the left it puts all room to the right,
 * from the right to the left; both are solutions, so is their mean, and that one is symmetric.
 */
function stretch(spans) {
  if (spans.length === 0) return Object.assign((x) => x, { stops: [] });
  const stops = [...new Set(spans.flatMap((span) => [span.start, span.end]))].sort((a, b) => a - b);
  const index = new Map(stops.map((stop, i) => [stop, i]));
  const endingAt = Map.groupBy(spans, (span) => span.end);
  const startingAt = Map.groupBy(spans, (span) => span.start);
  const last = stops.length - 1;

  const early = [stops[0]];
  for (let i = 1; i <= last; i++) {
    early[i] = early[i - 1] + stops[i] - stops[i - 1];
    for (const span of endingAt.get(stops[i]) ?? []) {
      early[i] = Math.max(early[i], early[index.get(span.start)] + span.size);
    }
  }
  const late = [];
  late[last] = early[last];
  for (let i = last - 1; i >= 0; i--) {
    late[i] = late[i + 1] - stops[i + 1] + stops[i];
    for (const span of startingAt.get(stops[i]) ?? []) {
      late[i] = Math.min(late[i], late[index.get(span.end)] - span.size);
    }
  }
  const places = stops.map((_, i) => (early[i] + late[i]) / 2);

  const map = (x) => {
    if (x <= stops[0]) return x;
    if (x >= stops[last]) return x + places[last] - stops[last];
    const high = firstAbove(stops, x);
    const part = (x - stops[high - 1]) / (stops[high] - stops[high - 1]);
    return mix(places[high - 1], places[high], part);
  };
  return Object.assign(map, { stops });
}

/** The index of the first of the sorted numbers that is greater than x. */
function firstAbove(numbers, x) {
  let low = 0;
  let high = numbers.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (numbers[middle] <= x) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** The size of an open group's inside and the maps of its axes, with those of its open children. */
function measure(group) {
  const open = new Map();
  const across = [];
  const down = [];
  for (const child of group.children) {
    if (!isOpen(child)) continue;
    const [x, y, w, h] = group.boxes.get(child.id);
    const inner = measure(child);
    const whole = {
      w: Math.max(w, inner.w + 2 * PAD, Math.min(360, textWidth(child.title, "title") + 48)),
      h: Math.max(h, HEADER + inner.h + PAD),
    };
    const size = { w: mix(w, whole.w, child.openness), h: mix(h, whole.h, child.openness) };
    // The wider the group grows, the farther its curves run aside, and they need air to bend in.
    const air = Math.min(MOST_AIR, 0.06 * (alongY ? size.w - w : size.h - h));
    open.set(child.id, { inner, whole, size });
    across.push({ start: x, end: x + w, size: size.w + (alongY ? 0 : 2 * air) });
    down.push({ start: y, end: y + h, size: size.h + (alongY ? 2 * air : 0) });
  }
  const mapX = stretch(across);
  const mapY = stretch(down);
  return { open, mapX, mapY, w: mapX(group.layout.width), h: mapY(group.layout.height) };
}

let scene; // {boxes, edges, ports, at: id → box, w, h}

function layOut() {
  const measured = measure(root);
  scene = { boxes: [], edges: [], ports: [], at: new Map(), w: measured.w, h: measured.h };
  place(root, measured, { x: 0, y: 0, sx: 1, sy: 1, opacity: 1 });
  scene.shown = scene.boxes.filter((box) => !box.item.isGroup).length;
}

/** Adds a group's inside to the scene; `frame` takes its stretched layout to absolute places. */
function place(group, measured, frame) {
  const spots = new Map();
  for (const child of group.children) {
    const spot = spotOf(child, group.boxes.get(child.id), measured);
    if (spot.open) spot.clear = clearanceOf(spot.was, group.boxes);
    spots.set(child.id, spot);
    const box = {
      item: child,
      open: Boolean(spot.open),
      opacity: frame.opacity,
      sx: frame.sx,
      sy: frame.sy,
      x: frame.x + frame.sx * spot.x,
      y: frame.y + frame.sy * spot.y,
      w: frame.sx * spot.w,
      h: frame.sy * spot.h,
    };
    scene.boxes.push(box);
    scene.at.set(child.id, box);
    if (spot.open) {
      // While the group opens, its inside is scaled to fit the size it has by now.
      place(child, spot.open.inner, {
        x: frame.x + frame.sx * spot.inside.x,
        sx: frame.sx * spot.inside.sx,
        y: frame.y + frame.sy * spot.inside.y,
        sy: frame.sy * spot.inside.sy,
        opacity: frame.opacity * child.openness,
      });
    }
  }
  for (const edge of group.edges) scene.edges.push(route(edge, measured, spots, frame));
  if (group !== root) {
    for (const [x, y] of group.ports.values()) {
      scene.ports.push(toAbsolute([measured.mapX(x), measured.mapY(y)], frame));
    }
  }
}

const toAbsolute = ([x, y], frame) => [frame.x + frame.sx * x, frame.y + frame.sy * y];

/** A child's place in its parent's stretched layout; `was` is its place before. */
function spotOf(child, [x, y, w, h], { open, mapX, mapY }) {
  const middleX = (mapX(x) + mapX(x + w)) / 2;
  const middleY = (mapY(y) + mapY(y + h)) / 2;
  const state = open.get(child.id);
  const size = state?.size ?? { w, h };
  const spot = {
    x: middleX - size.w / 2,
    y: middleY - size.h / 2,
    w: size.w,
    h: size.h,
    was: { x, y, w, h },
    child,
    open: state,
  };
  if (state) {
    const sx = size.w / state.whole.w;
    const sy = size.h / state.whole.h;
    const left = (state.whole.w - state.inner.w) / 2;
    spot.inside = { sx, sy, x: spot.x + sx * left, y: spot.y + sy * HEADER };
  }
  return spot;
}

/** Up to where nothing lies before and behind a box, in the direction in which values flow. */
function clearanceOf(box, boxes) {
  const [start, end] = alongY ? [box.y, box.y + box.h] : [box.x, box.x + box.w];
  const clear = { start, end, before: -Infinity, after: Infinity };
  for (const [x, y, w, h] of boxes.values()) {
    const [low, high] = alongY ? [y, y + h] : [x, x + w];
    if (high <= start) clear.before = Math.max(clear.before, high);
    if (low >= end) clear.after = Math.min(clear.after, low);
  }
  return clear;
}

/** One edge in absolute coordinates, with its arrow head, its bounds and the text of its path. */
function route(edge, measured, spots, frame) {
  const [from, to] = [spots.get(edge.from), spots.get(edge.to)];
  const stretched = measured.open.size > 0;
  const original = stretched ? cut(edge.points, measured, from, to) : edge.points;
  let points = original.map(([x, y]) => [measured.mapX(x), measured.mapY(y)]);
  if (stretched) keepSmooth(points, original);
  points = attach(points, original, edge, from, "out");
  // The end is the start of the curve walked backwards.
  points = attach(points.reverse(), original.toReversed(), edge, to, "in").reverse();
  points = points.map((point) => toAbsolute(point, frame));

  const head = to && !to.open ? arrowHead(points) : "";
  const xs = points.map((point) => point[0]);
  const ys = points.map((point) => point[1]);
  return {
    edge,
    points,
    head,
    opacity: frame.opacity,
    path: pathOf(points),
    left: Math.min(...xs),
    right: Math.max(...xs),
    top: Math.min(...ys),
    bottom: Math.max(...ys),
  };
}

/**
 * The curve cut where the maps bend. Between the cuts they are affine, and then mapping the control
 * points maps the whole curve: what ran around a box still does when the box has grown. At an open
 * group the value leaves from a port instead, aside of where the curve did; up to the next box the
 * curve is left uncut, so that it takes the direct way.
 */
function cut(whole, { mapX, mapY }, from, to) {
  const points = trimmed(whole, from, to);
  const pieces = [points[0]];
  const last = points.length - 4;
  for (let i = 0; i <= last; i += 3) {
    const curve = points.slice(i, i + 4);
    const start = i === 0 && from?.open ? (whereAt(curve, main, from.clear.after) ?? 1) : 0;
    const end = i === last && to?.open ? (whereAt(curve, main, to.clear.before) ?? 0) : 1;
    const places = [
      start,
      end,
      ...crossings(curve, 0, mapX.stops),
      ...crossings(curve, 1, mapY.stops),
    ];
    const inside = places.filter((t) => t >= start && t <= end && t > 0.001 && t < 0.999);
    inside.sort((a, b) => a - b);
    pieces.push(...split(curve, inside));
  }
  return pieces;
}

/** Without the knots beside an open group: a value leaves behind it and enters before it. */
function trimmed(points, from, to) {
  const last = points.length - 4;
  let [start, end] = [0, last];
  if (from?.open) while (start < last && points[start + 3][main] <= from.clear.end) start += 3;
  if (to?.open) while (end > start && points[end][main] >= to.clear.start) end -= 3;
  return [points[0], ...points.slice(start + 1, end + 3), points.at(-1)];
}

/** The parameters at which a curve crosses the stops of an axis. */
function crossings(curve, axis, stops) {
  const [low, high] = [curve[0][axis], curve[3][axis]].sort((a, b) => a - b);
  const crossed = stops.slice(firstAbove(stops, low), firstAbove(stops, high));
  return crossed.map((stop) => whereAt(curve, axis, stop)).filter((t) => t !== null);
}

/** The parameter at which one coordinate of a curve has a value between those of its ends. */
function whereAt(curve, axis, value) {
  const [a, b, c, d] = curve.map((point) => point[axis]);
  if ((a - value) * (d - value) >= 0) return null;
  let [low, high] = [0, 1];
  for (let i = 0; i < 24; i++) {
    const t = (low + high) / 2;
    const s = 1 - t;
    const here = s * s * s * a + 3 * s * s * t * b + 3 * s * t * t * c + t * t * t * d;
    if ((here - value) * (a - value) > 0) low = t;
    else high = t;
  }
  return (low + high) / 2;
}

/** A cubic cut at the given parameters (de Casteljau), without its first point. */
function split(curve, parameters) {
  const pieces = [];
  let [a, b, c, d] = curve;
  let done = 0;
  for (const parameter of parameters) {
    if (parameter - done < 0.001) continue;
    const t = (parameter - done) / (1 - done);
    const [ab, bc, cd] = [between(a, b, t), between(b, c, t), between(c, d, t)];
    const [abc, bcd] = [between(ab, bc, t), between(bc, cd, t)];
    const knot = between(abc, bcd, t);
    pieces.push(ab, abc, knot);
    [a, b, c] = [knot, bcd, cd];
    done = parameter;
  }
  return [...pieces, b, c, d];
}

/** Where the layout's curve had no corner, its stretched form gets none: handles turn in line. */
function keepSmooth(points, original) {
  for (let i = 3; i < points.length - 1; i += 3) {
    const [before, knot, after] = original.slice(i - 1, i + 2);
    const cross =
      (knot[0] - before[0]) * (after[1] - knot[1]) - (knot[1] - before[1]) * (after[0] - knot[0]);
    if (Math.abs(cross) > 0.05 * distance(before, knot) * distance(knot, after)) continue;
    const [a, k, b] = points.slice(i - 1, i + 2);
    const length = distance(a, b) || 1;
    const direction = [(b[0] - a[0]) / length, (b[1] - a[1]) / length];
    points[i - 1] = shift(k, direction, -distance(a, k));
    points[i + 1] = shift(k, direction, distance(k, b));
  }
}

const between = (a, b, t) => [mix(a[0], b[0], t), mix(a[1], b[1], t)];
const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]);
const shift = (point, direction, by) => [
  point[0] + by * direction[0],
  point[1] + by * direction[1],
];

/**
 * Joins the start of a curve to what it starts at: a box, a port of an open child, or (no spot) a
 * port of the group itself, where the map has put it already. `side` says whether the value goes
 * "in" to the child there or "out" of it.
 */
function attach(points, original, edge, spot, side) {
  if (!spot) return points;
  const [first, handle] = original;
  const start = moved(onBorder(first, spot.was), spot);
  const kept = [start, [handle[0] + start[0] - first[0], handle[1] + start[1] - first[1]]];
  const port = spot.open && portOf(spot, `${side}:${edge.value}`);
  if (!port) return [...kept, ...points.slice(2)];

  // The value crosses the border straight before or behind its port, and bends outside.
  const sign = side === "out" ? 1 : -1;
  const border = [...port];
  border[main] = [spot.x, spot.y][main] + (side === "out" ? [spot.w, spot.h][main] : 0);
  const bend = [...border];
  bend[main] += sign * Math.max(16, 0.45 * Math.abs(points[3][main] - border[main]));
  const t = spot.child.openness;
  const towards = (from, to) => between(from, to, t);
  const outer = towards(start, border);
  const lead = [port, between(port, outer, 1 / 3), between(port, outer, 2 / 3)];
  return [...lead, outer, towards(kept[1], bend), ...onFrom(points.slice(2), border, sign, t)];
}

/**
 * The rest of a curve that now comes from aside. At its first knot it takes the direction from where
 * it comes from to where it goes on (Catmull–Rom); without a knot its last handle is held out of the
 * group that it leaves.
 */
function onFrom([handle, knot, next, ...rest], border, sign, t) {
  if (!next) {
    const room = sign * (knot[main] - border[main]);
    const reach = sign * (knot[main] - handle[main]);
    return [reach > room && room > 0 ? between(knot, handle, room / reach) : handle, knot];
  }
  const goal = rest[1];
  const length = distance(border, goal) || 1;
  const direction = [(goal[0] - border[0]) / length, (goal[1] - border[1]) / length];
  const back = shift(knot, direction, -distance(border, knot) / 3);
  const forth = shift(knot, direction, distance(knot, goal) / 3);
  return [between(handle, back, t), knot, between(next, forth, t), ...rest];
}

/** A port of an open child in its parent's stretched layout; nothing if it has no such port. */
function portOf({ child, open, inside }, name) {
  const port = child.ports.get(name);
  return port && toAbsolute([open.inner.mapX(port[0]), open.inner.mapY(port[1])], inside);
}

/** Where a point of a child's box is now: at the same part of its width and height. */
function moved([x, y], { was, ...now }) {
  return [now.x + ((x - was.x) / was.w) * now.w, now.y + ((y - was.y) / was.h) * now.h];
}

/** The point of the box's border nearest to a point that lies near it. */
function onBorder([x, y], box) {
  const inX = clamp(x, box.x, box.x + box.w);
  const inY = clamp(y, box.y, box.y + box.h);
  const gaps = [inX - box.x, box.x + box.w - inX, inY - box.y, box.y + box.h - inY];
  const nearest = gaps.indexOf(Math.min(...gaps));
  if (nearest === 0) return [box.x, inY];
  if (nearest === 1) return [box.x + box.w, inY];
  return nearest === 2 ? [inX, box.y] : [inX, box.y + box.h];
}

/** A triangle with its tip at the curve's end; the curve is cut back, so the tip stays sharp. */
function arrowHead(points) {
  const tip = points.at(-1);
  const from = points.slice(0, -1).findLast((point) => distance(point, tip) > 0.5);
  if (!from) return "";
  const length = distance(from, tip);
  const direction = [(tip[0] - from[0]) / length, (tip[1] - from[1]) / length];
  const [x, y] = shift(tip, direction, -7);
  const [nx, ny] = [-3.2 * direction[1], 3.2 * direction[0]];
  points[points.length - 1] = shift(tip, direction, -Math.min(5, length / 2));
  const corners = [tip, [x + nx, y + ny], [x - nx, y - ny]];
  return `M${corners.map((corner) => corner.map(round)).join("L")}Z`;
}

function pathOf(points) {
  const numbers = points.map(([x, y]) => `${round(x)} ${round(y)}`);
  return `M${numbers[0]}C${numbers.slice(1).join(" ")}`;
}

/** The middle of a curve's longest piece, where its label stands. */
function middleOf(points) {
  let longest = 0;
  for (let i = 3; i < points.length - 1; i += 3) {
    if (distance(points[i], points[i + 3]) > distance(points[longest], points[longest + 3]))
      longest = i;
  }
  const [a, b, c, d] = points.slice(longest, longest + 4);
  return [0, 1].map((axis) => (a[axis] + 3 * b[axis] + 3 * c[axis] + d[axis]) / 8);
}

// ------------------------------------------------------------------------------------------- text

const FONTS = { title: "600 13px", line: "400 11px" };
const pen = document.createElement("canvas").getContext("2d");
const family = getComputedStyle(document.body).fontFamily;
const widths = { title: new Map(), line: new Map() };

function textWidth(text, font) {
  const known = widths[font].get(text);
  if (known !== undefined) return known;
  pen.font = `${FONTS[font]} ${family}`;
  const width = pen.measureText(text).width;
  widths[font].set(text, width);
  return width;
}

/**
 * A text element that stays within `room`. The layout was made with another machine's fonts, so a
 * text a little too wide is set a little tighter; one much too wide ends in an ellipsis.
 */
function fittedText(text, font, room, x, y) {
  const element = svg("text", { class: font, x, y: round(y) });
  const width = textWidth(text, font);
  if (width > room && width * 0.88 <= room) {
    element.setAttribute("textLength", round(room));
    element.setAttribute("lengthAdjust", "spacingAndGlyphs");
  }
  element.textContent = width * 0.88 <= room ? text : shortened(text, font, room);
  return element;
}

function shortened(text, font, room) {
  const letters = Array.from(text); // code points: no emoji is cut in two
  let low = 0;
  let high = letters.length;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (textWidth(`${letters.slice(0, middle).join("").trimEnd()}…`, font) <= room) low = middle;
    else high = middle - 1;
  }
  return low ? `${letters.slice(0, low).join("").trimEnd()}…` : "";
}

// ---------------------------------------------------------------------------------------- looks

const state = {
  selected: null,
  step: 0,
  heat: false,
  query: "",
  hits: [],
  hit: -1,
  hover: null,
  dimmed: new Set(), // "kind:…" and "phase:…" switched off in the legend
};

const isDimmed = (block) =>
  state.dimmed.has(`kind:${block.kind}`) || state.dimmed.has(`phase:${block.phase}`);

/** The classes that give a block or group its colours. */
function look(item) {
  const classes = [item.isGroup ? "block group" : "block"];
  classes.push(item.isGroup ? `g-${item.kind} p-${item.phase}` : `k-${item.kind} p-${item.phase}`);
  if (state.heat) classes.push(item.heat === undefined ? "unheated" : "heated");
  if (state.dimmed.size && item.blocks.length && item.blocks.every(isDimmed)) classes.push("dim");
  if (state.step) classes.push(progressOf(item));
  return classes.join(" ");
}

function progressOf(item) {
  if (!item.isGroup) {
    if (!item.step) return "timeless";
    if (item.step === state.step) return "current";
    return item.step < state.step ? "done" : "pending";
  }
  if (item.steps.length === 0) return "timeless";
  if (item.steps.at(-1) < state.step) return "done";
  return item.steps[0] > state.step ? "pending" : "current";
}

/** Heat in twelfths: far away, boxes of one look are one path. */
const heatOf = (item) =>
  state.heat && item.heat !== undefined ? Math.round(item.heat * 12) / 12 : null;

// --------------------------------------------------------------------------------------- painting

const stage = byId("stage");
const drawing = byId("drawing");
const world = byId("world");
const camera = { x: 0, y: 0, k: 1 }; // screen = k · scene + (x, y)
let painted = null; // {region, detailed, k} of what `world` holds

/** Paths by class and heat: many shapes of one look become one element. */
class Shapes {
  constructor() {
    this.groups = new Map();
  }

  add(path, classes, heat = null, opacity = 1) {
    const key = `${classes}|${heat}|${opacity}`;
    const known = this.groups.get(key);
    if (known) known.paths.push(path);
    else this.groups.set(key, { paths: [path], classes, heat, opacity });
  }

  elements() {
    return [...this.groups.values()].map(({ paths, classes, heat, opacity }) => {
      const element = svg("path", { d: paths.join(""), class: classes });
      if (heat !== null) element.style.setProperty("--heat", heat);
      if (opacity < 1) element.setAttribute("opacity", round(opacity));
      return element;
    });
  }
}

const rectangle = ({ x, y, w, h }) =>
  `M${round(x)} ${round(y)}h${round(w)}v${round(h)}h${round(-w)}Z`;

const overlaps = (box, region) =>
  box.x < region.right &&
  box.x + box.w > region.left &&
  box.y < region.bottom &&
  box.y + box.h > region.top;

const edgeOverlaps = (edge, region) =>
  edge.left < region.right &&
  edge.right > region.left &&
  edge.top < region.bottom &&
  edge.bottom > region.top;

/** Draws what lies in `region` of the scene into `target`, with texts and handles if `detailed`. */
function paint(target, region, detailed, k) {
  const boxes = scene.boxes.filter((box) => overlaps(box, region));
  const edges = scene.edges.filter((edge) => edgeOverlaps(edge, region));
  const closed = boxes.filter((box) => !box.open);
  const layers = [
    ...boxes.filter((box) => box.open).map(groundOf),
    ...edgeLayer(edges),
    ...(detailed ? detailedLayer(closed) : farLayer(closed)),
    ...(detailed ? boxes.filter((box) => box.open).map(headerOf) : []),
    ...(detailed ? edges.filter((edge) => edge.edge.label).map(labelOf) : []),
    portLayer(region),
    ...markLayer(k),
  ];
  target.replaceChildren(...layers);
  // Far away a line keeps a width that can be seen.
  target.style.setProperty("--hair", String(Math.max(1.25, 0.7 / k)));
}

function groundOf({ item, x, y, w, h, opacity }) {
  const classes = `ground g-${item.kind} p-${item.phase} ${item.depth % 2 ? "odd" : "even"}`;
  const box = { x: round(x), y: round(y), width: round(w), height: round(h), rx: 10 };
  return svg("rect", { class: classes, "data-id": item.id, opacity, ...box });
}

function headerOf({ item, x, y, w, sx, sy, opacity }) {
  const transform = `translate(${round(x)} ${round(y)}) scale(${sx} ${sy})`;
  const parity = item.depth % 2 ? "odd" : "even";
  const header = svg("g", { class: `header ${parity}`, transform, opacity });
  const room = w / sx - 40;
  header.append(svg("path", { class: "handle", d: "M9 13l4 5l4 -5" }));
  header.append(fittedText(item.title, "title", room, 25, 20));
  const used = textWidth(item.title, "title") + 8;
  if (item.lines.length && room - used > 48) {
    header.append(
      fittedText(item.lines.join(" · "), "line", Math.min(room - used, 240), 25 + used, 20),
    );
  }
  return header;
}

function edgeLayer(edges) {
  const chosen = state.selected;
  const into = chosen ? edgesInto(chosen) : new Set();
  const outOf = chosen ? edgesOutOf(chosen) : new Set();
  const plain = new Shapes();
  const marked = new Shapes();
  for (const { edge, path, head, opacity } of edges) {
    const role = into.has(edge) ? " input" : outOf.has(edge) ? " output" : "";
    const value = items.get(edge.value);
    const dim = state.dimmed.size && value && isDimmed(value) ? " dim" : "";
    const shapes = role ? marked : plain;
    shapes.add(path, `edge${role}${dim}`, null, opacity);
    if (head) shapes.add(head, `head${role}${dim}`, null, opacity);
  }
  const faint = chosen && marked.groups.size ? " behind" : "";
  return [svg("g", { class: `edges${faint}` }, ...plain.elements()), ...marked.elements()];
}

function labelOf({ edge, points, opacity }) {
  const [x, y] = middleOf(points);
  const label = svg("text", { class: "label", x: round(x), y: round(y + 3.5), opacity });
  label.textContent = edge.label;
  return label;
}

function portLayer(region) {
  const near = scene.ports.filter(
    ([x, y]) => x > region.left && x < region.right && y > region.top && y < region.bottom,
  );
  const dots = near.map(
    ([x, y]) => `M${round(x - 2.5)} ${round(y)}a2.5 2.5 0 1 0 5 0a2.5 2.5 0 1 0 -5 0Z`,
  );
  return svg("path", { class: "port", d: dots.join("") });
}

function farLayer(boxes) {
  const shapes = new Shapes();
  for (const box of boxes) {
    shapes.add(rectangle(box), `${look(box.item)} face far`, heatOf(box.item), box.opacity);
  }
  return shapes.elements();
}

function detailedLayer(boxes) {
  const shadows = boxes.map(({ x, y, w, h }) => roundedPath(x, y + 1.5, w, h));
  return [svg("path", { class: "shadow", d: shadows.join("") }), ...boxes.map(blockOf)];
}

function roundedPath(x, y, w, h) {
  const r = Math.min(6, w / 2, h / 2);
  const corner = (dx, dy) => `a${r} ${r} 0 0 1 ${dx} ${dy}`;
  const side = (name, length, sign) => `${name}${round(sign * (length - 2 * r))}`;
  return (
    `M${round(x + r)} ${round(y)}${side("h", w, 1)}${corner(r, r)}${side("v", h, 1)}${corner(-r, r)}` +
    `${side("h", w, -1)}${corner(-r, -r)}${side("v", h, -1)}${corner(r, -r)}Z`
  );
}

function blockOf({ item, x, y, w, h, sx, sy, opacity }) {
  const transform = `translate(${round(x)} ${round(y)})${sx < 1 || sy < 1 ? ` scale(${sx} ${sy})` : ""}`;
  const element = svg("g", { class: look(item), "data-id": item.id, transform });
  const heat = heatOf(item);
  if (heat !== null) element.style.setProperty("--heat", heat);
  if (opacity < 1) element.setAttribute("opacity", opacity);
  const [width, height] = [w / sx, h / sy];
  const face = { width: round(width), height: round(height), rx: 6 };
  if (item.isGroup) element.append(svg("rect", { class: "face stack", x: 3, y: 3, ...face }));
  element.append(svg("rect", { class: "face", ...face }));
  if (item.isGroup) element.append(handleOf(height), ...progressBar(item, width, height));
  element.append(...textsOf(item, width, height));
  if (progressOf(item) === "done") element.append(doneBadge(width));
  return element;
}

const handleOf = (height) =>
  svg("path", { class: "handle", d: `M7 ${round(height / 2 - 4)}l5 4l-5 4` });

/** Title and lines, as many as the height has room for, centred in it. */
function textsOf(item, width, height) {
  const left = item.isGroup ? 18 : 12;
  const room = width - left - 5; // text too wide for both margins may use most of the right one
  const count = Math.min(item.lines.length, Math.max(0, Math.floor((height - 14) / 15)));
  const top = (height - 16 - 15 * count) / 2;
  const title = fittedText(item.title, "title", room, left, top + 12.5);
  const lines = item.lines
    .slice(0, count)
    .map((line, i) => fittedText(line, "line", room, left, top + 27 + 15 * i));
  return [title, ...lines];
}

/** How far a closed group's steps are done. */
function progressBar(item, width, height) {
  if (!state.step || item.steps.length === 0) return [];
  const done = item.steps.filter((step) => step <= state.step).length;
  if (done === 0 || done === item.steps.length) return [];
  const length = ((width - 12) * done) / item.steps.length;
  return [svg("path", { class: "progress", d: `M6 ${round(height - 3)}h${round(length)}` })];
}

function doneBadge(width) {
  const badge = svg("g", { class: "badge", transform: `translate(${round(width - 2)} 2)` });
  badge.append(svg("circle", { r: 6.5 }), svg("path", { d: "M-3 0.2l2.2 2.2l3.8 -4.4" }));
  return badge;
}

/** Outlines that lie over everything: search hits, the current step, the selection, the pointer. */
function markLayer(k) {
  const wide = Math.max(1, 0.75 / k);
  const outline = (item, gap) => {
    const { x, y, w, h } = scene.at.get(visibleStandIn(item).id);
    const by = gap * wide;
    return roundedPath(x - by, y - by, w + 2 * by, h + 2 * by);
  };
  const hits = new Set(state.hits.map(visibleStandIn));
  hits.delete(state.selected); // two outlines would hide the arrows' tips
  const current = steps[state.step - 1];
  const hover = state.hover !== state.selected ? state.hover : null;
  return [
    ["hit", [...hits].map((item) => outline(item, 2))],
    ["step", current ? [outline(current, 3)] : []],
    ["selected", state.selected ? [outline(state.selected, 3)] : []],
    ["hover", hover ? [outline(hover, 1)] : []],
  ]
    .filter(([, paths]) => paths.length)
    .map(([name, paths]) =>
      svg("path", { class: `mark ${name}`, d: paths.join(""), "stroke-width": 2 * wide }),
    );
}

/** The part of the scene in the viewport, enlarged by `margin` of its size on every side. */
function regionInView(margin) {
  const { x, y, k } = camera;
  const [w, h] = [stage.clientWidth, stage.clientHeight];
  return {
    left: (-x - margin * w) / k,
    right: (-x + (1 + margin) * w) / k,
    top: (-y - margin * h) / k,
    bottom: (-y + (1 + margin) * h) / k,
  };
}

function draw() {
  const detailed = camera.k >= READABLE;
  painted = { region: regionInView(0.3), detailed, k: camera.k };
  paint(world, painted.region, detailed, camera.k);
  world.setAttribute("transform", `translate(${camera.x} ${camera.y}) scale(${camera.k})`);
}

/** Moves what is painted; paints anew when the viewport leaves it or the detail changes. */
function applyCamera() {
  const view = regionInView(0);
  const had = painted.region;
  const outside =
    view.left < had.left ||
    view.right > had.right ||
    view.top < had.top ||
    view.bottom > had.bottom;
  const lines = !painted.detailed && Math.abs(Math.log(painted.k / camera.k)) > 0.4;
  if (outside || lines || painted.detailed !== camera.k >= READABLE) draw();
  else world.setAttribute("transform", `translate(${camera.x} ${camera.y}) scale(${camera.k})`);
  moveMinimap();
}

// ----------------------------------------------------------------------------------------- camera

let stopCamera = () => {};
let cameraFrame = 0;

function setCamera(x, y, k) {
  Object.assign(camera, { x, y, k });
  cameraFrame ||= requestAnimationFrame(() => {
    cameraFrame = 0;
    applyCamera();
  });
}

/** The part of the stage that no panel covers. */
function freeArea() {
  const area = { w: stage.clientWidth, h: stage.clientHeight };
  if (!panel.hidden && narrow()) area.h -= panel.offsetHeight;
  if (!panel.hidden && !narrow()) area.w -= panel.offsetWidth + 16;
  return area;
}

function cameraAt(x, y, k) {
  const area = freeArea();
  return { x: area.w / 2 - k * x, y: area.h / 2 - k * y, k };
}

function fitZoom() {
  const area = freeArea();
  // A frame in a notebook may be lower than the margins.
  return Math.min(Math.max(40, area.w - 48) / scene.w, Math.max(40, area.h - 48) / scene.h);
}

/** A little less than what shows everything. */
const smallestZoom = () => Math.min(0.1, 0.8 * fitZoom());

function fitted() {
  return cameraAt(scene.w / 2, scene.h / 2, Math.min(fitZoom(), 1.25));
}

/** Where reading begins: everything if its parts can be told apart, else the first blocks. */
function firstView() {
  if (fitZoom() >= OVERVIEW) return fitted();
  const area = freeArea();
  const first = scene.boxes.reduce((a, b) => ((alongY ? b.y < a.y : b.x < a.x) ? b : a));
  const across = alongY ? (area.w - 48) / scene.w : (area.h - 48) / scene.h;
  const k = clamp(across, 0.6, 1);
  const about = across >= k ? { x: 0, y: 0, w: scene.w, h: scene.h } : first;
  const view = cameraAt(about.x + about.w / 2, about.y + about.h / 2, k);
  if (alongY)
    view.y = narrow() ? 64 : 24; // below the folded legend
  else view.x = 24;
  return view;
}

function flyTo(target, duration = 280) {
  stopCamera();
  const start = { ...camera };
  const [centreX, centreY] = [stage.clientWidth / 2, stage.clientHeight / 2];
  const middle = (view) => [(centreX - view.x) / view.k, (centreY - view.y) / view.k];
  const [from, to] = [middle(start), middle(target)];
  stopCamera = animate(duration, (t) => {
    if (t === 1) return setCamera(target.x, target.y, target.k);
    const k = Math.exp(mix(Math.log(start.k), Math.log(target.k), t));
    // Weighted by the zoom, so that zooming and moving end together and nothing swings.
    const s = start.k === target.k ? t : (1 / k - 1 / start.k) / (1 / target.k - 1 / start.k);
    setCamera(centreX - k * mix(from[0], to[0], s), centreY - k * mix(from[1], to[1], s), k);
  });
}

function zoomAt(x, y, factor) {
  const k = clamp(camera.k * factor, smallestZoom(), LARGEST_ZOOM);
  const by = k / camera.k;
  return { x: x - by * (x - camera.x), y: y - by * (y - camera.y), k };
}

function zoomBy(factor) {
  const area = freeArea();
  flyTo(zoomAt(area.w / 2, area.h / 2, factor), 160);
}

function panBy(dx, dy) {
  stopCamera();
  setCamera(camera.x + dx, camera.y + dy, camera.k);
}

/** Brings an item into the middle, large enough to read and small enough to see whole. */
function centre(item) {
  const box = scene.at.get(visibleStandIn(item).id);
  if (!box) return;
  const area = freeArea();
  const whole = Math.min((area.w - 48) / box.w, (area.h - 48) / box.h);
  const k = Math.min(clamp(camera.k, 0.8, 1.5), Math.max(whole, READABLE));
  flyTo(cameraAt(box.x + box.w / 2, box.y + box.h / 2, k));
}

// ----------------------------------------------------------------------------- opening and closing

let finishOpening = () => {};

/** Lays out and draws anew; the top left corner of `anchor` stays where it is on the screen. */
function refresh(anchor) {
  const before = anchor && scene.at.get(visibleStandIn(anchor).id);
  layOut();
  const after = anchor && scene.at.get(visibleStandIn(anchor).id);
  if (before && after) {
    camera.x += camera.k * (before.x - after.x);
    camera.y += camera.k * (before.y - after.y);
  }
  draw();
  drawMinimap();
  showCounts();
}

function toggle(group) {
  finishOpening();
  stopCamera();
  const goal = isOpen(group) ? 0 : 1;
  if (still() || scene.boxes.length + group.children.length > 600) {
    group.openness = goal;
    return finishToggle(group);
  }
  const stop = animate(240, (t) => {
    // 0 would count as closed before the movement is over.
    group.openness = t === 1 ? goal : clamp(goal ? t : 1 - t, 0.001, 1);
    if (t === 1) finishToggle(group);
    else refresh(group);
  });
  finishOpening = () => {
    stop();
    group.openness = goal;
    finishToggle(group);
  };
}

function finishToggle(group) {
  finishOpening = () => {};
  byId("level").value = ""; // no level any more
  refresh(group);
  if (state.selected) showPanel(state.selected);
}

/** Opens the groups an item lies in. */
function reveal(item) {
  finishOpening();
  const closed = [...ancestors(item)].filter((group) => !isOpen(group));
  if (closed.length === 0) return;
  const outermost = closed.at(-1);
  byId("level").value = "";
  for (const group of closed) group.openness = 1;
  refresh(outermost);
}

/** Opens all groups above `depth`, outer ones first, and closes the others. */
function openTo(depth) {
  finishOpening();
  let shown = 0;
  let stopped = false;
  let level = [root];
  for (const item of items.values()) if (item.isGroup && item !== root) item.openness = 0;
  while (level.length) {
    const next = [];
    for (const group of level) {
      const more = group.children.filter((child) => !child.isGroup).length;
      const fits = group === root || shown + more <= MOST_BLOCKS;
      stopped ||= !fits && group.depth < depth;
      if (!fits || group.depth >= depth) continue;
      shown += more;
      group.openness = 1;
      next.push(...group.children.filter((child) => child.isGroup));
    }
    level = next;
  }
  byId("level").value = stopped ? "" : Math.min(depth, byId("level").length - 1);
  refresh();
  if (state.selected) showPanel(state.selected);
  if (stopped) say(`Stopped at ${shown.toLocaleString()} blocks; open the others one by one.`);
  flyTo(firstView());
}

// -------------------------------------------------------------------------------------- selection

const panel = byId("panel");

function select(item, { reveals = false } = {}) {
  state.selected = item;
  showPanel(item);
  if (item && reveals) reveal(item);
  draw();
  if (item && reveals) centre(item);
  setHash(item);
}

function setHash(item) {
  try {
    history.replaceState(
      null,
      "",
      item ? `#${encodeURIComponent(item.id)}` : location.pathname + location.search,
    );
  } catch {
    // Pages without an address of their own (srcdoc, blob) have no history to write to.
  }
}

function selectFromHash() {
  let id = location.hash.slice(1);
  try {
    id = decodeURIComponent(id);
  } catch {
    // A stray % in a link typed by hand: take it as it is.
  }
  const item = items.get(id);
  if (item && item !== root) select(item, { reveals: true });
}

function showPanel(item) {
  panel.hidden = !item;
  if (!item) return;
  const close = html("button", { type: "button", className: "close", title: "Close (Esc)" }, "×");
  close.setAttribute("aria-label", "Close details");
  close.onclick = () => select(null);
  panel.replaceChildren(
    close,
    html("p", { className: "kind" }, whatIs(item)),
    html("h2", {}, item.title || item.id),
    ...item.lines.map((line) => html("p", { className: "line" }, line)),
    ...pathTo(item),
    ...(item.isGroup ? [toggleButton(item)] : []),
    detailList(item.details ?? []),
    ...linkList("Inputs", "input", inputsOf(item)),
    ...linkList("Outputs", "output", outputsOf(item)),
  );
}

function whatIs(item) {
  if (item.isGroup) {
    const count = item.blocks.length;
    return `${item.kind} · ${count.toLocaleString()} ${count === 1 ? "block" : "blocks"}`;
  }
  const step = item.step ? ` · step ${item.step} of ${steps.length}` : "";
  return `${KINDS[item.kind] ?? item.kind} · ${item.phase}${step}`;
}

function pathTo(item) {
  const outer = [...ancestors(item)].filter((group) => group !== root).reverse();
  if (outer.length === 0) return [];
  const links = outer.flatMap((group, i) => [...(i ? [" › "] : []), linkTo(group)]);
  return [html("p", { className: "path" }, "in ", ...links)];
}

function toggleButton(group) {
  const button = html("button", { type: "button", className: "toggle" });
  button.textContent = isOpen(group) ? "Close group" : "Open group";
  button.onclick = () => {
    reveal(group);
    toggle(group);
  };
  return button;
}

function linkTo(item) {
  const link = html("a", { href: `#${encodeURIComponent(item.id)}` }, item.title || item.id);
  link.onclick = (event) => {
    event.preventDefault();
    select(item, { reveals: true });
  };
  return link;
}

function linkList(title, role, others) {
  if (others.length === 0) return [];
  const most = 100; // a parameter of an unrolled loop may have thousands of readers
  const entries = others.slice(0, most).map((item) => {
    const note = html("span", { className: "muted" }, item.lines[0] ?? "");
    return html("li", {}, linkTo(item), " ", note);
  });
  if (others.length > most)
    entries.push(html("li", { className: "muted" }, `and ${others.length - most} more`));
  return [
    html(
      "h3",
      { className: role },
      `${title} `,
      html("span", { className: "muted" }, String(others.length)),
    ),
    html("ul", {}, ...entries),
  ];
}

/** Formulas and source lines are code; everything else is text. */
const isCode = (label, text) =>
  /\n/.test(text) || /^(derivative|gradient|formula|source|code|backward)/i.test(label);

function detailList(details) {
  const entries = details.flatMap(([label, text]) => {
    const value = isCode(label, text) ? html("pre", { tabIndex: 0 }, html("code", {}, text)) : text;
    return [html("dt", {}, label), html("dd", {}, value)];
  });
  return html("dl", {}, ...entries);
}

// ----------------------------------------------------------------------------------------- search

const query = byId("query");

function textOf(item) {
  item.text ??= [item.title, item.id, ...item.lines, ...(item.details ?? []).flat()]
    .join("\n")
    .toLowerCase();
  return item.text;
}

function search() {
  const words = query.value.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (item) => item !== root && words.every((word) => textOf(item).includes(word));
  state.query = query.value;
  state.hits = words.length ? [...items.values()].filter(matches) : [];
  state.hit = -1;
  showHits();
  draw();
}

function showHits() {
  const { hits, hit } = state;
  const count = hits.length.toLocaleString();
  byId("hits").textContent = state.query.trim() ? (hit < 0 ? count : `${hit + 1} / ${count}`) : "";
  byId("hit-next").disabled = byId("hit-previous").disabled = hits.length === 0;
}

function goToHit(by) {
  const { hits } = state;
  if (hits.length === 0) return;
  const start = state.hit < 0 && by < 0 ? 0 : state.hit;
  state.hit = (start + by + hits.length) % hits.length;
  showHits();
  select(hits[state.hit], { reveals: true });
}

function setUpSearch() {
  query.oninput = search;
  byId("search").onsubmit = (event) => {
    event.preventDefault();
    if (query.value !== state.query) search();
    goToHit(1);
  };
  byId("hit-previous").onclick = () => goToHit(-1);
  query.onkeydown = (event) => {
    if (event.key === "ArrowDown" || event.key === "ArrowUp") {
      event.preventDefault();
      goToHit(event.key === "ArrowDown" ? 1 : -1);
    } else if (event.key === "Enter" && event.shiftKey) {
      event.preventDefault();
      goToHit(-1);
    } else if (event.key === "Escape") {
      event.stopPropagation();
      query.value = "";
      search();
      drawing.focus();
    }
  };
  showHits();
}

// --------------------------------------------------------------------------------------- stepping

const slider = byId("step-slider");
let playing = 0;

/** Shows step n of the execution; 0 is before the first. */
function goToStep(n) {
  state.step = clamp(n, 0, steps.length);
  const block = steps[state.step - 1];
  slider.value = state.step;
  slider.setAttribute("aria-valuetext", block ? `${state.step}: ${block.title}` : "not started");
  if (block) reveal(block);
  draw();
  if (block) centre(block);
  showStep(block);
}

function showStep(block) {
  const count = html("span", { className: "count" }, `${state.step} / ${steps.length}`);
  const text = block
    ? [
        html("b", { className: `p-${block.phase}` }, PHASES[block.phase] ?? block.phase),
        ` ${block.title}`,
      ]
    : ["not started"];
  byId("step-text").replaceChildren(count, " ", ...text);
  byId("step-first").disabled = byId("step-back").disabled = state.step === 0;
  byId("step-last").disabled = byId("step-next").disabled = state.step === steps.length;
}

function play(on) {
  clearTimeout(playing);
  playing = 0;
  if (on) {
    if (state.step === steps.length) goToStep(0);
    playing = setTimeout(playOn, 0);
  }
  const button = byId("step-play");
  button.textContent = on ? "Pause" : "Play";
  button.setAttribute("aria-label", on ? "Pause" : "Play");
  button.setAttribute("aria-pressed", String(on));
}

function playOn() {
  goToStep(state.step + 1);
  if (state.step === steps.length) play(false);
  else playing = setTimeout(playOn, 1000 / Number(byId("speed").value));
}

function setUpSteps() {
  byId("stepper").hidden = steps.length === 0;
  slider.max = steps.length;
  const by = (change) => () => {
    play(false);
    goToStep(change());
  };
  byId("step-first").onclick = by(() => 0);
  byId("step-back").onclick = by(() => state.step - 1);
  byId("step-next").onclick = by(() => state.step + 1);
  byId("step-last").onclick = by(() => steps.length);
  slider.oninput = by(() => Number(slider.value));
  byId("step-play").onclick = () => play(!playing);
  showStep();
}

// ------------------------------------------------------------------------------- header and legend

function showCounts() {
  const [shown, total] = [scene.shown.toLocaleString(), blocks.length.toLocaleString()];
  const noun = blocks.length === 1 ? "block" : "blocks";
  byId("counts").textContent =
    shown === total ? `${total} ${noun}` : `${shown} of ${total} ${noun} shown`;
  kilograd.visible = scene.shown;
}

let messageEnd = 0;

function say(text) {
  byId("message").textContent = text;
  clearTimeout(messageEnd);
  messageEnd = setTimeout(() => (byId("message").textContent = ""), 6000);
}

function setUpTools() {
  const groups = [...items.values()].filter((item) => item.isGroup);
  const deepest = Math.max(...groups.map((group) => group.depth));
  const level = byId("level");
  level.append(html("option", { value: "", hidden: true }, "–"));
  for (let depth = 1; depth <= deepest + 1; depth++)
    level.append(html("option", { value: depth }, depth));
  level.value = "";
  level.onchange = () => openTo(Number(level.value));
  for (const id of ["level-label", "open-all", "close-all"]) byId(id).hidden = deepest === 0;
  byId("open-all").onclick = () => openTo(Infinity);
  byId("close-all").onclick = () => openTo(1);
  byId("save").onclick = save;
  const heat = byId("heat");
  heat.hidden = !blocks.some((block) => block.heat !== undefined);
  heat.onclick = () => {
    state.heat = !state.heat;
    heat.setAttribute("aria-pressed", String(state.heat));
    byId("legend").classList.toggle("hot", state.heat);
    draw();
  };
  byId("zoom-in").onclick = () => zoomBy(1.4);
  byId("zoom-out").onclick = () => zoomBy(1 / 1.4);
  byId("fit").onclick = () => flyTo(fitted());
}

function setUpLegend() {
  const entries = byId("legend-entries");
  const present = (names, field) =>
    Object.keys(names).filter((name) => blocks.some((block) => block[field] === name));
  const phases = present(PHASES, "phase");
  for (const phase of phases.length > 1 ? phases : []) {
    entries.append(legendEntry(`phase:${phase}`, PHASES[phase], `block k-op p-${phase}`));
  }
  for (const kind of present(KINDS, "kind")) {
    if (kind !== "op" || phases.length === 1) {
      entries.append(legendEntry(`kind:${kind}`, KINDS[kind], `block k-${kind} p-${phases[0]}`));
    }
  }
  entries.append(
    html(
      "div",
      { className: "ramp" },
      html("span", {}, "fast"),
      html("i", {}),
      html("span", {}, "slow"),
    ),
  );
  byId("legend").open = stage.clientWidth >= 960;
}

function legendEntry(key, name, classes) {
  const swatch = svg("svg", { class: classes, viewBox: "0 0 16 12", "aria-hidden": "true" });
  swatch.append(svg("rect", { class: "face", x: 0.75, y: 0.75, width: 14.5, height: 10.5, rx: 3 }));
  const button = html("button", { type: "button", title: "Show or dim" }, swatch, name);
  button.setAttribute("aria-pressed", "true");
  button.onclick = () => {
    if (!state.dimmed.delete(key)) state.dimmed.add(key);
    button.setAttribute("aria-pressed", String(!state.dimmed.has(key)));
    draw();
  };
  return button;
}

// ---------------------------------------------------------------------------------------- minimap

const minimap = byId("minimap");

/** A small picture of everything, shown while the whole is too large to read at once. */
function drawMinimap() {
  const needed = fitZoom() < READABLE && !narrow();
  minimap.toggleAttribute("hidden", !needed);
  if (!needed) return;
  const k = Math.min(160 / scene.w, 160 / scene.h);
  minimap.setAttribute("width", Math.max(24, scene.w * k));
  minimap.setAttribute("height", Math.max(24, scene.h * k));
  minimap.setAttribute("viewBox", `0 0 ${scene.w} ${scene.h}`);
  byId("minimap-boxes").setAttribute(
    "d",
    scene.boxes
      .filter((box) => !box.open)
      .map(rectangle)
      .join(""),
  );
  moveMinimap();
}

function moveMinimap() {
  if (minimap.hasAttribute("hidden")) return;
  const { left, right, top, bottom } = regionInView(0);
  const view = { x: left, y: top, width: right - left, height: bottom - top };
  for (const [key, value] of Object.entries(view)) byId("minimap-view").setAttribute(key, value);
}

function setUpMinimap() {
  minimap.onpointerdown = minimap.onpointermove = (event) => {
    if (event.buttons !== 1) return;
    minimap.setPointerCapture(event.pointerId);
    const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(
      minimap.getScreenCTM().inverse(),
    );
    const { x, y, k } = cameraAt(point.x, point.y, camera.k);
    stopCamera();
    setCamera(x, y, k);
  };
}

// -------------------------------------------------------------------------------- pointer and keys

/** The innermost box at a point of the stage; boxes stand in the scene after those around them. */
function boxAt(screenX, screenY) {
  const x = (screenX - camera.x) / camera.k;
  const y = (screenY - camera.y) / camera.k;
  const box = scene.boxes.findLast((b) => x >= b.x && x <= b.x + b.w && y >= b.y && y <= b.y + b.h);
  if (!box) return null;
  const handle = box.item.isGroup && x - box.x < 24 && (!box.open || y - box.y < HEADER);
  return { item: box.item, handle: handle && camera.k >= READABLE };
}

function positionOf(event) {
  const bounds = stage.getBoundingClientRect();
  return [event.clientX - bounds.left, event.clientY - bounds.top];
}

const pointers = new Map(); // those that are down, by id: one drags, two pinch
let dragged = false;

function setUpPointer() {
  drawing.onpointerdown = (event) => {
    if (event.button !== 0) return;
    stopCamera();
    if (pointers.size === 0) dragged = false;
    pointers.set(event.pointerId, positionOf(event));
    drawing.setPointerCapture(event.pointerId);
  };
  drawing.onpointermove = (event) => {
    if (!pointers.has(event.pointerId)) return hover(event);
    const now = positionOf(event);
    const others = [...pointers].filter(([id]) => id !== event.pointerId).map(([, place]) => place);
    const before = pointers.get(event.pointerId);
    if (others.length === 0 && !dragged && distance(before, now) < 4) return;
    dragged = true;
    drawing.classList.add("dragging");
    pointers.set(event.pointerId, now);
    panOrPinch(before, now, others[0]);
  };
  drawing.onpointerup = drawing.onpointercancel = (event) => {
    const pressed = pointers.delete(event.pointerId);
    if (pointers.size === 0) drawing.classList.remove("dragging");
    if (pressed && !dragged && event.type === "pointerup") click(event);
  };
  drawing.onpointerleave = () => setHover(null);
  drawing.ondblclick = (event) => {
    const hit = boxAt(...positionOf(event));
    if (hit && !hit.handle && hit.item.isGroup) toggle(hit.item);
  };
  drawing.addEventListener("wheel", wheel, { passive: false });
}

function panOrPinch(before, now, other) {
  if (!other) return panBy(now[0] - before[0], now[1] - before[1]);
  const [from, to] = [between(before, other, 0.5), between(now, other, 0.5)];
  const view = zoomAt(...from, distance(now, other) / Math.max(1, distance(before, other)));
  setCamera(view.x + to[0] - from[0], view.y + to[1] - from[1], view.k);
}

function click(event) {
  const hit = boxAt(...positionOf(event));
  if (hit?.handle) toggle(hit.item);
  else if ((hit?.item ?? null) !== state.selected) select(hit?.item ?? null);
}

function wheel(event) {
  event.preventDefault();
  stopCamera();
  const unit = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 16 : 1;
  const speed = event.ctrlKey ? 0.01 : 0.0016; // a trackpad's pinch comes as small steps with Ctrl
  const factor = Math.exp(-clamp(event.deltaY * unit, -400, 400) * speed);
  const view = zoomAt(...positionOf(event), factor);
  setCamera(view.x, view.y, view.k);
}

function hover(event) {
  if (event.pointerType === "touch") return;
  const place = positionOf(event);
  const hit = boxAt(...place);
  drawing.classList.toggle("pointing", Boolean(hit));
  setHover(hit && !isOpen(hit.item) ? hit.item : null, place);
}

/** Outlines the item under the pointer; where its text is too small, a note says its name. */
function setHover(item, place) {
  const tip = byId("tip");
  tip.hidden = !item || camera.k >= READABLE;
  if (!tip.hidden) {
    tip.textContent = [item.title, ...item.lines].join(" · ");
    tip.style.left = `${clamp(place[0] + 14, 0, Math.max(0, stage.clientWidth - 240))}px`;
    tip.style.top = `${place[1] + 18}px`;
  }
  if (state.hover === item) return;
  state.hover = item;
  for (const mark of world.querySelectorAll(".mark")) mark.remove();
  world.append(...markLayer(camera.k));
}

const KEYS = {
  "+": () => zoomBy(1.4),
  "=": () => zoomBy(1.4),
  "-": () => zoomBy(1 / 1.4),
  0: () => flyTo(fitted()),
  "/": () => query.focus(),
  n: () => steps.length && byId("step-next").click(),
  p: () => steps.length && byId("step-back").click(),
  Escape: () => select(null),
  Enter: () => state.selected?.isGroup && toggle(visibleStandIn(state.selected)),
  ArrowLeft: () => panBy(80, 0),
  ArrowRight: () => panBy(-80, 0),
  ArrowUp: () => panBy(0, 80),
  ArrowDown: () => panBy(0, -80),
};

function setUpKeys() {
  document.onkeydown = (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
    const inField = event.target.closest("input:not([type=range]), select");
    const used = event.key === "Enter" || event.key.startsWith("Arrow"); // by buttons, links, lists
    if (inField && event.key !== "Escape") return;
    if (used && event.target !== drawing && event.target !== document.body) return;
    event.preventDefault();
    KEYS[event.key]();
  };
}

// ----------------------------------------------------------------------------------------- saving

const SAVED_STYLES = [
  "fill",
  "stroke",
  "stroke-width",
  "stroke-linejoin",
  "stroke-linecap",
  "stroke-dasharray",
  "opacity",
  "font-family",
  "font-size",
  "font-weight",
  "text-anchor",
  "paint-order",
];

/** The whole graph as it is opened now, in an SVG file that needs nothing of this page. */
function pictureText() {
  const [hover, margin] = [state.hover, 24];
  state.hover = null;
  const copy = svg("svg", { xmlns: SVG, class: "picture" });
  const everything = {
    left: -margin,
    top: -margin,
    right: scene.w + margin,
    bottom: scene.h + margin,
  };
  const content = svg("g", { class: "world" });
  stage.append(copy); // computed styles exist only in the document
  copy.append(
    svg("rect", { class: "paper", x: -margin, y: -margin, width: "100%", height: "100%" }),
    content,
  );
  paint(content, everything, true, 1);
  state.hover = hover;
  inlineStyles(copy);
  const [w, h] = [round(scene.w + 2 * margin), round(scene.h + 2 * margin)];
  for (const [key, value] of Object.entries({
    width: w,
    height: h,
    viewBox: `${-margin} ${-margin} ${w} ${h}`,
  })) {
    copy.setAttribute(key, value);
  }
  copy.remove();
  copy.prepend(svg("title", {}, pageTitle()));
  // XML has no form for control characters, and a user's text may hold some.
  return new XMLSerializer()
    .serializeToString(copy)
    .toWellFormed()
    .replace(/[\0-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]/g, "");
}

const pageTitle = () => document.querySelector("h1").textContent;

/** Writes the styles the sheet gives each shape into the shape: all are read, then written. */
function inlineStyles(copy) {
  const shapes = [...copy.querySelectorAll("rect, path, circle, text, g")];
  const styles = shapes.map((shape) => {
    const computed = getComputedStyle(shape);
    const names = shape.tagName === "g" ? ["opacity"] : SAVED_STYLES;
    return names.map((name) => [name, computed.getPropertyValue(name)]);
  });
  shapes.forEach((shape, i) => {
    const isText = shape.tagName === "text";
    for (const [name, value] of styles[i]) {
      if (/^(font|text)/.test(name) && !isText) continue;
      if (value && !(name === "opacity" && value === "1")) setPlain(shape, name, value);
    }
  });
  for (const element of [copy, ...shapes]) {
    // Asked first: Chromium removes no style that was set from a script and never read.
    for (const name of ["class", "style"])
      if (element.hasAttribute(name)) element.removeAttribute(name);
  }
}

/** SVG before version 2 has no rgba(): the transparency is an attribute of its own. */
function setPlain(shape, name, value) {
  const parts = /^rgba\((\d+), (\d+), (\d+), ([\d.]+)\)$/.exec(value);
  if (!parts) return shape.setAttribute(name, value);
  shape.setAttribute(name, `rgb(${parts[1]}, ${parts[2]}, ${parts[3]})`);
  shape.setAttribute(`${name}-opacity`, parts[4]);
}

function save() {
  const file = new Blob([pictureText()], { type: "image/svg+xml" });
  const name =
    pageTitle()
      .replace(/[^\p{L}\p{N}]+/gu, "-")
      .replace(/^-+|-+$/g, "") || "graph";
  const link = html("a", { href: URL.createObjectURL(file), download: `${name}.svg` });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// ------------------------------------------------------------------------------------------ start

/** For tests and for those who script the page: when it was ready, and what it shows. */
const kilograd = {
  ready: null,
  visible: 0,
  total: blocks.length,
  get camera() {
    return { ...camera };
  },
  get selected() {
    return state.selected?.id ?? null;
  },
  get step() {
    return state.step;
  },
  get steps() {
    return steps.map((block) => block.id);
  },
  get opened() {
    return scene.boxes.filter((box) => box.open).map((box) => box.item.id);
  },
  get boxes() {
    return scene.boxes.map(({ item, x, y, w, h, open }) => ({ id: item.id, x, y, w, h, open }));
  },
  get edges() {
    return scene.edges.map(({ edge, points, head }) => ({
      from: edge.from,
      to: edge.to,
      group: edge.group.id,
      points,
      head,
    }));
  },
  get ports() {
    return scene.ports;
  },
  picture: pictureText,
};
window.kilograd = kilograd;

layOut();
setUpTools();
setUpLegend();
setUpSearch();
setUpSteps();
setUpMinimap();
setUpPointer();
setUpKeys();
Object.assign(camera, firstView());
draw();
drawMinimap();
showCounts();
selectFromHash();
window.onhashchange = selectFromHash;
new ResizeObserver(() => {
  draw();
  drawMinimap();
}).observe(stage);
// The first frame after this one has been painted when the frame after it begins.
requestAnimationFrame(() => requestAnimationFrame(() => (kilograd.ready = performance.now())));
