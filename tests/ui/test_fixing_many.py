"""Fix many lines at once: what is stated, or found and replaced, is shown first, and sent as it was shown."""

import json
import re
from html import unescape

import pytest

from tests.ui.conftest import ROOT, Site, runs_of
from tests.ui.producers import load, text_of
from tests.ui.test_fixing import ACTION, conf_of, form_of, get, post, take_uploads, waiting

GOOD: dict[str, object] = {"_p": "ann", "_t": 1_700_000_000, "_n": "Signed up"}


def hidden(html: str) -> dict[str, str]:
    """What the form that sends holds besides what a person writes."""
    form = html.partition('action="' + ROOT)[2].partition("</form>")[0]
    found = re.findall(r'<input type="hidden" name="([^"]*)" value="([^"]*)">', form)
    return {unescape(name): unescape(value) for name, value in found}


def millis(number: int) -> str:
    return f'{{"_p": "p{number}",  "_t": 1795435200{number:03}, "_n": "x", "price": 1.10}}'


def test_the_stated_values_fix_all_lines_of_a_problem(site: Site) -> None:
    take_uploads(site)
    file_id = load(site.job, "a.json", GOOD, *map(millis, range(500)), "broken", '{"_p":"x","_t":1795435200000,"_n":7}')
    site.know_dags()
    html = get(site, file_id).text
    assert "Use the stated values in all 501" in html
    to_fix = f"{file_id}/fix?code=time_in_milliseconds"
    assert f'href="{ROOT}/files/{to_fix}">Use the stated values in all 501 lines' in get(site, f"{file_id}/mend").text

    html = get(site, to_fix).text
    told = text_of(html)
    assert "of 501 lines that would change, 500 are right. Lines that are still wrong stay open." in told
    assert "the first 20 of 501" in told
    assert 'before {"_p": "p7", "_t": 1795435200007,' in told
    assert 'after {"_p": "p7", "_t": 1795435200.007,' in told
    before = len(runs_of(ACTION))
    answer = post(site, f"{file_id}/fix", hidden(html) | {"do": "send", "reason": "milliseconds"}, status=303)
    conf, who = conf_of(answer)
    assert (conf["action"], conf["files"], conf["reason"], who) == ("redrive", [file_id], "milliseconds", "the user")
    assert len(runs_of(ACTION)) == before + 1
    sent = waiting(site, conf).splitlines()
    assert len(sent) == 501
    assert sent[7] == "9\t" + millis(7).replace("1795435200007", "1795435200.007"), "but for the time it is as it was"
    site.carry_out(answer)
    assert site.job.count("commands") == 501
    assert "2 still open" in text_of(get(site, file_id).text)


def test_what_is_sent_is_what_was_shown(site: Site) -> None:
    take_uploads(site)
    file_id = load(site.job, "a.json", GOOD, millis(1), millis(2))
    site.know_dags()
    html = get(site, f"{file_id}/fix").text
    fixed = millis(1).replace("1795435200001", "1795435200")
    site.carry_out(
        post(
            site,
            f"{file_id}/mend",
            form_of(get(site, f"{file_id}/mend").text) | {"line:2": fixed, "do": "send"},
            status=303,
        )
    )
    told = post(site, f"{file_id}/fix", hidden(html) | {"do": "send"}, status=409).text
    assert "Nothing was sent: the open lines are others than in the preview" in told
    assert "of 1 line that would change" in text_of(told)
    post(site, f"{file_id}/fix", {"do": "send"}, status=409)


def test_find_and_replace(site: Site) -> None:
    take_uploads(site)
    lines = [json.dumps(GOOD | {"_t": "<soon>", "n": n}) for n in range(3)]
    file_id = load(site.job, "a.json", GOOD, *lines, "broken <soon>", b"\xff<soon>")
    site.know_dags()
    asked = {"code": "", "find": '"<soon>"', "put": "1700000000", "do": "preview"}
    html = post(site, f"{file_id}/fix", asked).text
    told = text_of(html)
    assert "of 3 lines that would change, 3 are right. 2 more open lines stay as they are" in told
    assert "<soon>" not in html, "what producers send is text"
    assert hidden(html)["find"] == '"<soon>"'
    site.carry_out(post(site, f"{file_id}/fix", hidden(html) | {"do": "send"}, status=303))
    assert site.job.count("commands") == 4
    nothing = post(site, f"{file_id}/fix", asked | {"find": "nowhere"}).text
    assert "No open line holds this text" in text_of(nothing)
    assert "Say what to find" in post(site, f"{file_id}/fix", asked | {"find": ""}).text
    assert site.job.count("commands") == 4


@pytest.mark.slow
def test_one_line_takes_the_value_that_its_failure_states(site: Site) -> None:
    file_id = load(site.job, "a.json", GOOD, millis(1), "broken")
    html = get(site, f"{file_id}/mend").text
    assert ">Use 1795435200.001</button>" in html
    assert '<button name="do" value="enter" hidden>' in html.partition("<textarea")[0], "Enter checks, and uses nothing"
    form = form_of(html) | {"line:3": "edited, too", "use": "2"}
    html = post(site, f"{file_id}/mend", form).text
    assert form_of(html)["line:2"] == millis(1).replace("1795435200001", "1795435200.001")
    assert form_of(html)["line:3"] == "edited, too", "what was written stays"
    assert "line 2 right: becomes record" in text_of(html)
    assert site.job.count("commands") == 1
    for strange in ("99", "x", "2/item"):
        post(site, f"{file_id}/mend", form | {"use": strange})


def test_items_of_documents_state_values_too(site: Site) -> None:
    site.job.configure(format="woopra")
    visit: dict[str, object] = {
        "visitor": {"id": "v"},
        "actions": [{"name": "a", "time": 1_444_077_951}, {"name": "b", "time": 1_444_077_951_000}],
    }
    file_id = load(site.job, "a.json", visit)
    told = text_of(get(site, f"{file_id}/fix?code=time_in_seconds").text)
    assert "of 1 line that would change, 1 is right." in told
    assert "1444077951000" in told
