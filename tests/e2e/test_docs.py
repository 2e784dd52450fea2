"""What the manual says is there, is there; and what is there, the manual says."""
import glob
import os
import re
import shutil
import subprocess
import unittest

from harness import BUILD, ROOT, GatewayTest, make_certificate


def read(*path):
    with open(os.path.join(ROOT, *path)) as f:
        return f.read()


def sources(*folders):
    return {path: read(path) for folder in folders
            for path in glob.glob(folder + "/**/*.c", root_dir=ROOT, recursive=True)}


def plain(mdoc):
    """The words of a piece of a page, without macros."""
    text = mdoc.replace(r"\(dq", '"').replace(r"\&", "")
    return " ".join(re.sub(r"(?m)^\.[A-Z][a-z]\b|(?<= )(?:Cm|Li|Ar|Fl|Pa|Ns|No|Oo|Oc|Op)(?= )", "", text)
                    .split())


def page(name):
    """{section or sub-section: [(names of an item, its text)]}, with the text before the first as ((), text)."""
    sections = {}
    for part in re.split(r"(?m)^\.S[hs] ", read("doc", name))[1:]:
        title, _, body = part.partition("\n")
        items = re.split(r"(?m)^\.It ", body)
        sections[title] = [((), items[0])] + [(item.partition("\n")[0], item.partition("\n")[2])
                                              for item in items[1:]]
    return sections


def items(section, macro):
    """{name: text} of the items that are marked with that macro."""
    return {name: text for head, text in section if head and head.startswith(macro + " ")
            for name in re.split(r" , |, ", head[len(macro) + 1:])}


def config_options():
    """{section: {option: default}} of the config, "" being the top."""
    text = read("relayd", "core", "config_options.c")
    tables = {name: dict(re.findall(r'CFG_STR(?:_LIST)?\("([^"]+)", (NULL|"[^"]*")', body))
              for name, body in re.findall(r"static cfg_opt_t (\w+)_opts\[\] = \{(.*?)\n\};", text, re.S)}
    tables[""] = tables.pop("root")
    return tables


def builtin_filters():
    return set(re.findall(r"&filter_(\w+)", read("filters", "builtin.c")))


class Config(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.page, cls.options = page("relayd.conf.5"), config_options()
        cls.sections = {title.split()[0]: items(section, "Cm") for title, section in cls.page.items()
                        if title == "Options" or title.split()[0] in cls.options}
        cls.sections[""] = cls.sections.pop("Options")

    def test_every_option_has_its_entry_and_every_entry_its_option(self):
        self.assertEqual(set(self.sections), set(self.options))
        for name in set(self.options) - {"filter"}:
            with self.subTest(name):
                self.assertEqual(set(self.sections[name]), set(self.options[name]))

    def test_defaults_are_as_the_page_says(self):
        for name, options in self.options.items():
            for option, default in options.items():
                default = default.strip('"')
                if name == "filter" or default in ("NULL", "", "{}", "no", "off", "any", "0", "auto"):
                    continue
                with self.subTest("%s %s" % (name, option)):
                    text = plain(self.sections[name][option])
                    for word in default.strip("{}").split(", "):
                        self.assertIn(word, text)

    def test_filters_and_their_options(self):
        kinds = builtin_filters()
        known = set()
        for kind in kinds:
            path = [p for p in ("filters/%s.c" % kind, "filters/%s/%s.c" % (kind, kind))
                    if os.path.exists(os.path.join(ROOT, p))]
            code = "".join(read(p) for p in path) or "".join(sources("filters/" + kind).values())
            table = re.search(r"struct filter_option \w*options\[\] = \{(.*?)\n\};", code, re.S)
            names = re.findall(r'\{ "([a-z-]+)"', table[1])
            known |= set(names)
            with self.subTest(kind):
                words = re.findall(r"[a-z-]+", plain(self.sections["filter"][kind]))
                self.assertEqual([n for n in names if n not in words], [])
        common = set(self.sections["filter"]) - set(kinds)
        self.assertEqual(common | known, set(self.options["filter"]))

    def test_the_example_names_what_there_is(self):
        known = {name for options in self.options.values() for name in options} | set(self.options)
        lines = [re.sub("^(# ?)|# .*", "", line) for line in read("etc", "relayd.conf").splitlines()]
        named = set(re.findall(r"(?:^|[{ ])([a-z][a-z0-9-]*) *(?:=(?!\d)|\{)", "\n".join(lines), re.M))
        self.assertEqual(named - known - builtin_filters()
                         - {"mx", "submission", "submissions", "balanced", "inbound", "outbound", "example"}, set())


class Readme(GatewayTest):
    def test_the_config_of_the_readme_passes(self):
        make_certificate(self.folder, "", "DNS:mx.example.org")
        with open(self.folder + "/users", "w") as f:
            f.write("")
        os.chmod(self.folder + "/users", 0o600)
        text = re.search(r"(?m)(?:^ {8}.*\n)*^ {8}hostname .*\n(?:^ {8}.*\n)*", read("README.md"))[0]
        text = text.replace("/etc/relayd/tls/", self.folder + "/").replace("/etc/relayd/users",
                                                                          self.folder + "/users")
        with open(self.folder + "/relayd.conf", "w") as f:
            f.write(text + "\n")
        done = subprocess.run([BUILD + "/relayd", "-n", "-c", self.folder + "/relayd.conf"],
                              capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""))


class Relayctl(unittest.TestCase):
    """By what the program itself says."""

    GROUPS = {"queue", "quarantine", "spool", "user"}

    @classmethod
    def setUpClass(cls):
        cls.entries = [(head, text) for head, text in page("relayctl.8")["DESCRIPTION"]
                       if head and head.startswith("Ic ")]
        cls.commands = {}
        for head, text in cls.entries:
            words = re.match(r"Ic ([a-z]+)(?: ([a-z]+))?", head)
            group = words[1] if words[1] in cls.GROUPS else None
            cls.commands.setdefault(words[1], set()).add(words[2] if group else None)

    def usage(self, *words):
        done = subprocess.run([BUILD + "/relayctl", *words], capture_output=True, text=True, timeout=60)
        self.assertEqual(done.returncode, 2, words)
        return done.stderr

    def test_every_command_has_its_entry(self):
        said = re.findall(r"(?m)^  ([a-z]+) ", self.usage())
        self.assertEqual(set(said), set(self.commands))
        for group in self.GROUPS:
            with self.subTest(group):
                text = self.usage(group).partition("WHICH:")[0]
                words = set(re.findall(r"(?<![-\w'])[a-z]+(?![\w:])", text)) - {"relayctl", group, "routes"}
                self.assertEqual(words, self.commands[group])

    def test_every_option_has_its_entry(self):
        for name in self.GROUPS | {"top", "scan", "trace"}:
            with self.subTest(name):
                said = set(re.findall(r"--([a-z0-9-]+)", self.usage(name, "--no-such-option")
                                      .partition("usage:")[2])) - {"json"}
                mine, told = [], False
                for head, text in page("relayctl.8")["DESCRIPTION"]:
                    if head and head.startswith("Ic "):
                        told = re.match(r"Ic %s\b" % name, head) is not None
                    if told:
                        mine += re.findall(r"Fl -([a-z0-9-]+)", head + "\n" + text)
                self.assertEqual(set(mine), said)


class Log(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.code = "\n".join(sources("relayd").values())
        cls.told = items(page("relayd.8")["LOG"], "Cm")

    def test_every_event_has_its_entry(self):
        names = set(re.findall(r'log_event\(\s*"([a-z.]+)"', self.code))
        names |= set(re.findall(r'"((?:message|delivery)\.[a-z]+)"', self.code))
        self.assertEqual(names, set(self.told))

    def test_what_a_limit_or_an_alarm_is_about_is_told(self):
        for event in "limit", "delivery.alarm":
            with self.subTest(event):
                what = re.findall(r'log_event\(\s*"%s",[^;]*?kv_str\("what",\s*"([^"]+)"\)' % event, self.code)
                text = plain(self.told[event])
                self.assertGreater(len(what), 5)
                self.assertEqual([w for w in what if not re.search(r"\b%s\b" % w, text)], [])

    def test_counters_that_are_named_are_counted(self):
        counted = set(re.findall(r'X\([A-Z0-9_]+, "([a-z0-9_]+)"', read("relayd", "core", "counters.h")))
        for name in "relayd.8", "relayd.conf.5", "relayctl.8", "durability.md":
            for counter in re.findall(r"\brelayd_([a-z0-9_]+)", read("doc", name)):
                self.assertIn(counter, counted)


class Filters(unittest.TestCase):
    def test_the_interface_for_filters_is_told(self):
        header, text = read("include", "relayd", "filter.h"), read("doc", "relayd-filter.3")
        names = [set(re.findall(r"\b(?:FILTER|FACT)_[A-Z_]+\b", t)) for t in (header, text)]
        self.assertEqual(names[0], names[1])
        host = re.search(r"struct filter_host \{(.*?)\n\};", header, re.S)[1]
        called = set(re.findall(r"tx->host->(\w+)", text)) | set(re.findall(r"Fn filter_(\w+)", text))
        self.assertEqual(set(re.findall(r"\(\*(\w+)\)", host)), called)


@unittest.skipUnless(shutil.which("mandoc"), "mandoc is not installed")
class Pages(unittest.TestCase):
    def test_they_are_well_formed(self):
        for path in glob.glob(ROOT + "/doc/*.[0-9]"):
            done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", path], capture_output=True,
                                  text=True, timeout=60)
            self.assertEqual(done.stdout, "")
