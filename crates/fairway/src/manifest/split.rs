//! Splits a text into YAML documents without parsing it, so that changing one document costs one document.
//!
//! A line that starts with `---` or `...` in column zero ends a document wherever it is, even in a block scalar (YAML 1.2.2,
//! section 9.1.2), so it is enough to look at the starts of lines.

/// One document of a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Document<'a> {
    /// Line of the file where it begins, from 1.
    pub(super) line: u32,
    /// Its text, including the marker line.
    pub(super) text: &'a str,
}

/// The documents of a text, except those that contain only comments.
pub(super) fn documents(text: &str) -> Vec<Document<'_>> {
    let mut documents = Vec::new();
    let (mut start, mut start_line) = (0, 1);
    let (mut marked, mut content) = (false, false);
    let mut at = 0;
    let mut line_number = 1;
    while at < text.len() {
        let end = text[at..].find('\n').map_or(text.len(), |found| at + found + 1);
        let line = &text[at..end];
        if is_marker(line, "---") {
            if content {
                documents.push(Document { line: start_line, text: &text[start..at] });
            }
            // Without a marker, only directives can come before this one, and they belong to it.
            if content || marked {
                (start, start_line) = (at, line_number);
            }
            marked = true;
            // Text after the marker on its line belongs to the document.
            content = !is_blank(&line[3..]);
        } else if is_marker(line, "...") {
            if content {
                documents.push(Document { line: start_line, text: &text[start..end] });
            }
            (start, start_line) = (end, line_number + 1);
            (marked, content) = (false, false);
        } else if !content {
            content = !is_blank(line) && !line.starts_with('%');
        }
        at = end;
        line_number += 1;
    }
    if content {
        documents.push(Document { line: start_line, text: &text[start..] });
    }
    documents
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether a line is blank, apart from a comment.
fn is_blank(line: &str) -> bool {
    let rest = line.trim_start();
    rest.is_empty() || rest.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(text: &str) -> Vec<(u32, &str)> {
        documents(text).into_iter().map(|document| (document.line, document.text)).collect()
    }

    #[test]
    fn documents_are_cut_at_markers() {
        assert_eq!(cut("a: 1\n---\nb: 2\n--- # c\nc: 3"), [(1, "a: 1\n"), (2, "---\nb: 2\n"), (4, "--- # c\nc: 3")]);
        assert_eq!(cut("---\r\na: 1\r\n---\r\nb: 2\r\n"), [(1, "---\r\na: 1\r\n"), (3, "---\r\nb: 2\r\n")]);
        assert_eq!(cut("--- {a: 1}\n--- {b: 2}\n"), [(1, "--- {a: 1}\n"), (2, "--- {b: 2}\n")]);
    }

    #[test]
    fn documents_without_content_are_left_out() {
        assert_eq!(cut(""), []);
        assert_eq!(cut("---\n# nothing\n---\n\n---\n"), []);
        assert_eq!(cut("---\n# of b\n---\nb: 2\n"), [(3, "---\nb: 2\n")]);
    }

    #[test]
    fn only_markers_at_column_zero_count() {
        assert_eq!(cut("a: |\n  ---\n  x\nb: ----\n---x: 1\n").len(), 1);
    }

    #[test]
    fn directives_stay_with_their_document() {
        assert_eq!(cut("a: 1\n...\n%YAML 1.2\n---\nb: 2\n"), [(1, "a: 1\n...\n"), (3, "%YAML 1.2\n---\nb: 2\n")]);
    }
}
