from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.config.schema import Automation
from edge_runtime.core.clock import SECOND
from edge_runtime.core.messages import Command
from edge_runtime.decision.dialog import Act, Beep, Dialog, Heard, Mode, Noted, Sound

T = 1000 * SECOND
WORD = Heard(T, T + SECOND // 2, "reject", 0.9, Command.REJECT, origin="m@1")


def saying(command: Command) -> Heard:
    return replace(WORD, transcript=command.value, command=command)


def outcomes(todo) -> list[str]:
    return [one.request.outcome for one in todo if isinstance(one, Noted)]


def acts(todo) -> list[Act]:
    return [one for one in todo if isinstance(one, Act)]


def test_words_outside_a_window_do_nothing():
    dialog = Dialog(Automation.PARTIAL)
    assert dialog.heard(WORD, T) == []
    assert dialog.mode is Mode.IDLE


def test_a_command_is_carried_out_after_the_moment_to_cancel():
    dialog = Dialog(Automation.PARTIAL)
    assert dialog.open("wake", T) == [Beep(Sound.OPEN)]
    assert dialog.heard(WORD, T) == [Beep(Sound.TAKEN)]
    assert dialog.tick(T + SECOND) == []
    todo = dialog.tick(T + 2 * SECOND)
    assert acts(todo) == [Act(Command.REJECT)]
    assert outcomes(todo) == ["done"]


def test_cancel_takes_a_command_back():
    dialog = Dialog(Automation.PARTIAL)
    dialog.open("button", T)
    dialog.heard(WORD, T)
    todo = dialog.heard(saying(Command.CANCEL), T + SECOND)
    assert (acts(todo), outcomes(todo)) == ([], ["cancelled"])
    assert dialog.tick(T + 9 * SECOND) == []


def test_nothing_but_cancel_is_taken_while_a_command_is_pending():
    dialog = Dialog(Automation.PARTIAL)
    dialog.open("wake", T)
    dialog.heard(WORD, T)
    assert dialog.heard(saying(Command.ACCEPT), T + SECOND) == []
    assert acts(dialog.tick(T + 2 * SECOND)) == [Act(Command.REJECT)]


def test_with_full_automation_a_verdict_is_only_noted():
    dialog = Dialog(Automation.FULL)
    dialog.open("wake", T)
    dialog.heard(WORD, T)
    todo = dialog.tick(T + 2 * SECOND)
    assert acts(todo) == [Act(Command.REJECT, as_label=True)]
    assert outcomes(todo) == ["noted"]


def test_stop_line_does_not_wait():
    dialog = Dialog(Automation.FULL)
    dialog.open("wake", T)
    assert acts(dialog.heard(saying(Command.STOP_LINE), T)) == [Act(Command.STOP_LINE)]


def test_search_results_wait_for_a_choice():
    dialog = Dialog(Automation.FULL)
    dialog.open("wake", T)
    dialog.heard(Heard(T, T, "grease", 0.8, None, ("D02", "D01"), "m@1"), T)
    assert dialog.shown == ("D02", "D01")
    assert dialog.choose("A742") == []
    (noted,) = dialog.choose("D02")
    assert (noted.request.choice, noted.request.outcome, noted.request.results) == ("D02", "answered", ("D02", "D01"))


def test_a_code_one_symbol_off_is_told_and_is_no_result():
    near = "no A741; one symbol off: A742"
    dialog = Dialog(Automation.FULL)
    dialog.open("wake", T)
    todo = dialog.heard(Heard(T, T, "alpha seven four one", 0.8, None, (), "m@1", near=near), T)
    (noted,) = [one for one in todo if isinstance(one, Noted)]
    assert (noted.request.outcome, noted.request.results, noted.request.reason) == ("empty", (), near)
    assert (dialog.mode, dialog.says, dialog.shown) == (Mode.WINDOW, f"{near}, say it again", ())
    assert dialog.choose("A742") == []
    assert outcomes(dialog.typed("a741", [], T, near)) == ["cancelled", "empty"]
    assert dialog.says == near


def test_speech_that_is_not_understood_opens_the_window_again_and_counts_as_redo():
    dialog = Dialog(Automation.FULL)
    dialog.open("wake", T)
    todo = dialog.heard(Heard(T, T, "", 0.2), T)
    assert outcomes(todo) == ["unheard"]
    assert dialog.mode is Mode.WINDOW
    dialog.heard(WORD, T + SECOND)
    (noted,) = [one for one in dialog.tick(T + 4 * SECOND) if isinstance(one, Noted)]
    assert noted.request.redo == 1


def test_the_window_does_not_open_for_ever():
    dialog = Dialog(Automation.FULL)
    dialog.open("wake", T)
    for _ in range(3):
        dialog.heard(Heard(T, T, "", 0.2), T)
    assert dialog.mode is Mode.IDLE


def test_a_window_in_which_nobody_speaks_ends_by_itself():
    dialog = Dialog(Automation.FULL)
    dialog.open("wake", T)
    assert outcomes(dialog.tick(T + 3 * SECOND)) == ["silent"]


def test_a_window_stays_open_for_speech_but_not_for_ever():
    dialog = Dialog(Automation.FULL)
    dialog.open("wake", T)
    for second in range(3, 8):
        dialog.speech(T + second * SECOND - 1)
        closed = dialog.tick(T + second * SECOND)
    assert outcomes(closed) == ["silent"]


def test_typing_does_not_cancel_a_pending_command():
    dialog = Dialog(Automation.PARTIAL)
    dialog.open("wake", T)
    dialog.heard(WORD, T)
    assert acts(dialog.typed("oil", ["D02"], T)) == [Act(Command.REJECT)]
    assert dialog.shown == ("D02",)


def test_a_typed_search_without_results_is_told():
    dialog = Dialog(Automation.FULL)
    assert outcomes(dialog.typed("zebra", [], T)) == ["empty"]
    assert "zebra" in dialog.says


steps = st.one_of(
    st.just(("open",)),
    st.just(("cancel",)),
    st.just(("speech",)),
    st.tuples(st.just("tick"), st.integers(0, 40)),
    st.tuples(st.just("heard"), st.sampled_from([*Command, None])),
    st.tuples(st.just("find"), st.integers(0, 2)),
    st.tuples(st.just("choose"), st.sampled_from(["A", "B"])),
    st.tuples(st.just("typed"), st.integers(0, 1)),
)


@given(st.lists(steps, max_size=40), st.sampled_from(Automation))
def test_every_request_ends_once_and_no_verdict_is_acted_on_where_the_model_decides(script, automation):
    dialog, now, todo, begun = Dialog(automation), T, [], 0
    for step in script:
        match step:
            case ("open",):
                begun += dialog.mode not in (Mode.WINDOW, Mode.PENDING)
                todo += dialog.open("wake", now)
            case ("cancel",):
                todo += dialog.cancel(now)
            case ("speech",):
                dialog.speech(now)
            case ("tick", seconds):
                now += seconds * SECOND
                todo += dialog.tick(now)
            case ("heard", command):
                before = dialog.mode
                todo += dialog.heard(Heard(now, now, command.value if command else "", 0.9, command), now)
                begun += before is Mode.WINDOW and dialog.mode is Mode.WINDOW
            case ("find", count):
                before = dialog.mode
                todo += dialog.heard(Heard(now, now, "x", 0.9, None, ("A", "B")[:count]), now)
                begun += before is Mode.WINDOW and dialog.mode is Mode.WINDOW
            case ("choose", code):
                todo += dialog.choose(code)
            case ("typed", count):
                begun += 1
                todo += dialog.typed("x", ("A",)[:count], now)
    for _ in range(4):
        now += 60 * SECOND
        todo += dialog.tick(now)
    assert dialog.mode is Mode.IDLE
    assert len(outcomes(todo)) == begun
    if automation is Automation.FULL:
        assert all(act.as_label for act in acts(todo) if act.command in (Command.ACCEPT, Command.REJECT))
