//! Checks that texts keep to the word list of `docs/style.md`, and that heads of files are statements.
//!
//! Texts are string literals of product code, all comments and names of functions, the contents of pages and scripts, and
//! documents. Code in documents (between backticks or fences) is not checked.

use std::path::PathBuf;

use world::root;

/// The files below `folders` whose names end with one of `endings`, as paths relative to the project.
fn files(folders: &[&str], endings: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(std::fs::read_dir(&path).expect("a folder").flatten().map(|entry| entry.path()));
        } else if endings.iter().any(|ending| path.to_string_lossy().ends_with(ending)) {
            found.push(path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Product code: all crates without their tests.
fn sources() -> Vec<String> {
    let folders = [
        "auth/src",
        "shared/src",
        "shared/lake/src",
        "shared/problem/src",
        "intake/src",
        "intake/kafka/src",
        "speed/src",
        "batch/src",
        "batch/spark/src",
        "batch/spark_connect/src",
        "serving/src",
        "alerts/src",
        "sinks/src",
        "src",
    ];
    let folders: Vec<_> = folders.into_iter().filter(|folder| root().join(folder).exists()).collect();
    let mut files = files(&folders, &[".rs"]);
    files.retain(|file| !file.contains("/tests") && !file.contains("_tests") && !file.ends_with("/laws.rs"));
    files
}

fn documents() -> Vec<String> {
    let mut files =
        files(&["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs", "examples"], &[".md"]);
    files.retain(|file| file != "docs/style.md");
    files
}

/// A word or phrase that is not used. One that starts with a capital letter counts at the start of a sentence only.
#[derive(Debug)]
struct Rule {
    words: String,
    exceptions: Vec<String>,
    opens_sentence: bool,
}

/// The table below "Words that are not used".
fn rules() -> Vec<Rule> {
    let style = read("docs/style.md");
    let (_, table) = style.split_once("## Words that are not used").expect("the word list");
    let mut rules = Vec::new();
    for line in table.lines().filter(|line| line.starts_with("| `")) {
        let mut cells = line.trim_matches('|').split('|');
        let mut quoted = || -> Vec<String> {
            cells.next().unwrap_or_default().split('`').skip(1).step_by(2).map(str::to_owned).collect()
        };
        let (banned, exceptions) = (quoted(), quoted());
        for words in banned {
            let opens_sentence = words.starts_with(char::is_uppercase);
            let exceptions = exceptions.iter().map(|words| format!(" {words} ")).collect();
            rules.push(Rule { words: format!(" {} ", words.to_lowercase()), exceptions, opens_sentence });
        }
    }
    assert!(rules.len() > 30, "{rules:?}");
    rules
}

/// The words of `text` in lower case with a space around each; `.` starts a sentence, and `,` separates clauses.
fn words(text: &str) -> String {
    let mut words = String::from(" . ");
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        if c.is_alphanumeric() || c == '\'' {
            words.extend(c.to_lowercase());
        } else {
            let ends = rest.peek().is_none_or(|next| next.is_whitespace());
            words.push_str(match c {
                '.' | '?' | '!' | ':' if ends => " . ",
                ',' | ';' if ends => " , ",
                _ => " ",
            });
        }
    }
    words.push(' ');
    words.split_whitespace().fold(String::from(" "), |all, word| all + word + " ")
}

/// The rules that `text` breaks.
fn broken<'a>(text: &str, rules: &'a [Rule]) -> Vec<&'a Rule> {
    let words = words(text);
    let breaks = |rule: &&Rule| {
        let words = rule.exceptions.iter().fold(words.clone(), |words, exception| words.replace(exception, " "));
        if rule.opens_sentence { words.contains(&format!(" .{}", rule.words)) } else { words.contains(&rule.words) }
    };
    rules.iter().filter(breaks).collect()
}

/// The texts of a Rust file up to its tests: documentation comments, joined, and string literals.
fn texts_of_code(code: &str) -> Vec<String> {
    let code = code.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    let mut texts = vec![String::new()];
    for line in code.lines() {
        let line = line.trim_start();
        match line.strip_prefix("///").or_else(|| line.strip_prefix("//!")) {
            Some(comment) => texts.last_mut().expect("one").extend([comment, "\n"]),
            None => texts.push(String::new()),
        }
    }
    let texts: Vec<_> = texts.iter().map(|text| without_code(text)).collect();
    texts.into_iter().chain(literals(code)).collect()
}

/// The comments of Rust code, joined while they follow each other, and the names of its functions as words.
fn comments_and_names(code: &str) -> Vec<String> {
    let mut texts = vec![String::new()];
    for line in code.lines() {
        let line = line.trim_start();
        if let Some(comment) = line.strip_prefix("//") {
            texts.last_mut().expect("one").extend([comment.trim_start_matches(['/', '!']), "\n"]);
            continue;
        }
        let name =
            line.split_once("fn ").and_then(|(_, rest)| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next());
        texts.extend([name.unwrap_or_default().replace('_', " "), String::new()]);
    }
    texts.iter().map(|text| without_code(text)).collect()
}

/// The string literals of Rust code.
fn literals(code: &str) -> Vec<String> {
    let mut literals = Vec::new();
    let mut rest = code;
    while let Some(at) = rest.find(['"', '/', '\'']) {
        let (before, from) = rest.split_at(at);
        if from.starts_with("//") {
            rest = from.split_once('\n').map_or("", |(_, rest)| rest);
        } else if let Some(quoted) = from.strip_prefix('"') {
            let hashes = before.len() - before.trim_end_matches('#').len();
            let is_raw = before.trim_end_matches('#').ends_with('r');
            let end = if is_raw {
                quoted.find(&format!("\"{}", "#".repeat(hashes)))
            } else {
                let mut escaped = false;
                quoted.find(|c| {
                    let ends = c == '"' && !escaped;
                    escaped = c == '\\' && !escaped;
                    ends
                })
            };
            let end = end.expect("a literal ends");
            literals.push(without_placeholders(&quoted[..end].replace("\\n", "\n").replace("\\\"", "\"")));
            rest = &quoted[end + 1..];
        } else if from.starts_with("'\"'") || from.starts_with("'\\\"'") || from.starts_with("'\\''") {
            rest = from[1..].split_once("'").map_or("", |(_, rest)| rest);
        } else {
            rest = &from[1..];
        }
    }
    literals
}

/// A literal with an `x` in place of each `{placeholder}`, and without the backslashes that continue its lines.
fn without_placeholders(literal: &str) -> String {
    let literal = literal.replace("\\\n", "\n");
    let mut parts = literal.split('{');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "x" + part.split_once('}').map_or(part, |(_, rest)| rest))
}

/// A text without what stands between backticks or fences.
fn without_code(text: &str) -> String {
    let prose: String = text.split("```").step_by(2).collect::<Vec<_>>().join("\n\n");
    prose.split('`').step_by(2).collect::<Vec<_>>().join(" ` ")
}

/// The paragraphs and table cells of a document, without code and addresses of links.
fn texts_of_document(text: &str) -> Vec<String> {
    let prose = without_code(text);
    let prose = prose.split("](").enumerate().map(|(i, part)| match (i, part.split_once(')')) {
        (0, _) | (_, None) => part.to_owned(),
        (_, Some((_, rest))) => rest.to_owned(),
    });
    let prose = prose.collect::<Vec<_>>().join("");
    let prose = prose.replace("\n|", "\n\n").replace("\n- ", "\n\n").replace('|', "\n\n").replace("**", "");
    prose.split("\n\n").map(str::to_owned).collect()
}

/// The texts of a page (between tags, and attributes) or script (comments and literals, line by line).
fn texts_of_page(text: &str) -> Vec<String> {
    let text = text.replace("{#", "").replace("#}", "").replace(['<', '>', '"', '`'], "\n");
    text.lines().map(|line| line.trim().trim_start_matches(['/', '*', ' ']).to_owned()).collect()
}

fn assert_kept(files: Vec<String>, texts: fn(&str) -> Vec<String>) {
    let rules = rules();
    let mut found = Vec::new();
    for file in files {
        for text in texts(&read(&file)) {
            for rule in broken(&text, &rules) {
                let start: String = text.trim().chars().take(160).collect();
                found.push(format!("{file}: \"{}\" in: {start}", rule.words.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{} texts break docs/style.md:\n{}", found.len(), found.join("\n"));
}

#[test]
fn code_keeps_to_the_word_list() {
    assert_kept(sources(), texts_of_code);
}

#[test]
fn comments_and_names_of_functions_keep_to_the_word_list() {
    let folders = ["shared", "intake", "speed", "batch", "serving", "alerts", "sinks", "auth", "src", "tests", "bench"];
    let mut files = files(&folders, &[".rs"]);
    // Holds examples of banned words.
    files.retain(|file| file != "tests/language.rs");
    assert_kept(files, comments_and_names);
}

#[test]
fn pages_keep_to_the_word_list() {
    assert_kept(files(&["serving/templates", "serving/assets"], &[".html", ".js"]), texts_of_page);
}

#[test]
fn documents_keep_to_the_word_list() {
    assert_kept(documents(), texts_of_document);
}

#[test]
fn heads_of_files_are_statements() {
    let mut questions = Vec::new();
    for file in sources() {
        let code = read(&file);
        let head = code.lines().take_while(|line| line.starts_with("//!"));
        let head = head.map(|line| line[3..].trim()).collect::<Vec<_>>().join(" ");
        let end = head
            .match_indices(['.', '?', ':'])
            .find(|(at, _)| head[at + 1..].is_empty() || head[at + 1..].starts_with(' '));
        if end.is_some_and(|(_, mark)| mark == "?") {
            questions.push(format!("{file}: {}", head.chars().take(100).collect::<String>()));
        }
    }
    assert!(questions.is_empty(), "{} heads open with a question:\n{}", questions.len(), questions.join("\n"));
}

#[test]
fn banned_words_are_found_and_exceptions_are_not() {
    let rules = rules();
    let found = |text: &str| !broken(text, &rules).is_empty();
    for bad in ["nobody waits", "The client is told.", "x. Who hangs up", "this is no day", "it goes on", "What is new"]
    {
        assert!(found(bad), "{bad}");
    }
    for good in
        ["there is no such path", "it is no longer kept", "a query that is cancelled", "the outdoor", "not what is new"]
    {
        assert!(!found(good), "{good}");
    }
    let code = "//! Told.\n/// `anew`\nfn f() { let _ = (\"door\", 'x', '\"', r#\"a \"shall\" b\"#); } // begun\n";
    let texts = texts_of_code(code);
    assert_eq!(texts.iter().filter(|text| found(text)).count(), 3, "{texts:?}");
}
