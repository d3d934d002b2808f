//! A flame graph: an SVG file that needs no other. A function's width is its share, what it calls stands upon it.
//!
//! Invariant: without a script it is a whole picture; with one, a click makes a function as wide as the picture, and a
//! click on the lowest line shows all again.

use std::fmt::Write;

use super::stacks::Stacks;

const WIDTH: f64 = 1200.0;
const ROW: usize = 18;
const HEAD: usize = 34;
/// Narrower ones would not be seen.
const NARROWEST: f64 = 0.3;
/// Width of a letter.
const LETTER: f64 = 6.6;

const SCRIPT: &str = "
const all = [...document.querySelectorAll('g')];
for (const g of all) g.addEventListener('click', () => zoom(+g.dataset.x, +g.dataset.w));
function zoom(from, wide) {
  const k = 1200 / wide;
  for (const g of all) {
    const x = Math.max(0, (g.dataset.x - from) * k), end = Math.min(1200, (+g.dataset.x + +g.dataset.w - from) * k);
    g.style.display = end - x < 0.3 ? 'none' : '';
    const [rect, text] = [g.querySelector('rect'), g.querySelector('text')];
    rect.setAttribute('x', x); rect.setAttribute('width', Math.max(0, end - x));
    text.setAttribute('x', x + 3);
    const room = Math.floor((end - x - 6) / 6.6), name = g.dataset.n;
    text.textContent = room < 3 ? '' : name.length <= room ? name : name.slice(0, room - 1) + '\\u2026';
  }
}
";

/// A function at a place of the picture. Its begin and width are in units of the stacks.
struct Block<'a> {
    name: &'a str,
    depth: usize,
    from: u64,
    width: u64,
}

/// The picture.
pub(super) fn draw(stacks: &Stacks, title: &str) -> String {
    let blocks = blocks(stacks);
    let deepest = blocks.iter().map(|block| block.depth).max().unwrap_or(0);
    let height = HEAD + (deepest + 1) * ROW + 6;
    let total = stacks.total().max(1);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"monospace\" \
         font-size=\"11\">\n<style>g:hover rect {{ stroke: black }} g {{ cursor: pointer }}</style>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fffdf7\"/>\n<text x=\"8\" y=\"20\" font-size=\"14\">{}</text>\n",
        escape(title)
    );
    for block in &blocks {
        one(&mut svg, block, total, height - 6 - (block.depth + 1) * ROW);
    }
    let _ = writeln!(svg, "<script><![CDATA[{SCRIPT}]]></script>\n</svg>");
    svg
}

fn one(svg: &mut String, block: &Block<'_>, total: u64, y: usize) {
    let scale = WIDTH / total as f64;
    let (x, width) = (block.from as f64 * scale, block.width as f64 * scale);
    if width < NARROWEST {
        return;
    }
    let (begin, share) = (block.from as f64 / total as f64, block.width as f64 / total as f64);
    let (name, text) = (escape(block.name), escape(&fitting(block.name, width)));
    // Writing to a string can not fail.
    let _ = writeln!(
        svg,
        "<g data-x=\"{begin:.6}\" data-w=\"{share:.6}\" data-n=\"{name}\"><title>{name}: {} ({:.2} %)</title>\
         <rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"{}\" rx=\"1\" fill=\"{}\"/>\
         <text x=\"{:.2}\" y=\"{}\">{text}</text></g>",
        block.width,
        share * 100.0,
        ROW - 1,
        colour(block.name),
        x + 3.0,
        y + 13,
    );
}

/// Neighbours with the same callers are one block. The stacks are sorted, so that equal beginnings lie side by side.
fn blocks(stacks: &Stacks) -> Vec<Block<'_>> {
    let mut done = Vec::new();
    let mut open: Vec<Block<'_>> = Vec::new();
    let mut at = 0;
    for (stack, count) in stacks.iter() {
        let same = open.iter().zip(stack).take_while(|(block, name)| block.name == *name).count();
        done.extend(open.drain(same..));
        let fresh = stack.iter().enumerate().skip(same);
        open.extend(fresh.map(|(depth, name)| Block { name, depth, from: at, width: 0 }));
        open.iter_mut().for_each(|block| block.width += count);
        at += count;
    }
    done.append(&mut open);
    done
}

fn fitting(name: &str, width: f64) -> String {
    let room = ((width - 6.0) / LETTER).max(0.0) as usize;
    match name.chars().count() {
        _ if room < 3 => String::new(),
        letters if letters <= room => name.to_owned(),
        _ => name.chars().take(room - 1).chain(['…']).collect(),
    }
}

/// The same name has the same colour; the kernel's are blue.
fn colour(name: &str) -> String {
    let hash = name.bytes().fold(5381u32, |hash, byte| hash.wrapping_mul(33) ^ u32::from(byte));
    let hue = if name.ends_with("[kernel]") { 200 + hash % 30 } else { 15 + hash % 40 };
    format!("hsl({hue},{}%,{}%)", 65 + hash / 64 % 25, 62 + hash / 4096 % 14)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guards the widths: a caller is as wide as all that it calls and itself, and equal callers are drawn once.
    #[test]
    fn callers_are_as_wide_as_what_they_call() {
        let mut stacks = Stacks::default();
        let stack = |names: &str| names.split(' ').map(str::to_owned).collect::<Vec<_>>();
        stacks.add(stack("t a b"), 3);
        stacks.add(stack("t a"), 1);
        stacks.add(stack("t b"), 4);
        let seen: Vec<_> =
            blocks(&stacks).iter().map(|block| (block.name, block.depth, block.from, block.width)).collect();
        let mut sorted = seen.clone();
        sorted.sort_by_key(|(_, depth, from, _)| (*depth, *from));
        assert_eq!(sorted, [("t", 0, 0, 8), ("a", 1, 0, 4), ("b", 1, 4, 4), ("b", 2, 1, 3)]);
        let svg = draw(&stacks, "a < b");
        assert!(svg.contains("a &lt; b") && svg.matches("<g ").count() == 4, "{svg}");
    }

    /// Guards against names that do not fit and marks that end the picture early.
    #[test]
    fn names_fit() {
        assert_eq!((fitting("abcdef", 20.0), fitting("abcdef", 60.0)), (String::new(), "abcdef".to_owned()));
        assert_eq!(fitting("abcdefghij", 50.0), "abcde…");
    }
}
