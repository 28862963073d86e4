"""What a `%%distributed` cell does and shows, in a real kernel with two workers."""

from __future__ import annotations

import re

from support.notebook import Notebook, Ran

BOTH = "[0\u20131]"


def _displays(ran: Ran, mime: str) -> list[str]:
    """The displays of this type, the frames of our own text left out."""
    shown = [str(output["data"][mime]) for output in ran.outputs if mime in output.get("data", {})]
    return [data for data in shown if 'class="qd"' not in data]


def _labels(ran: Ran) -> list[str]:
    """Whose the displays are, in the order of the page."""
    return sorted(line for line in ran.lines() if re.fullmatch(r"\[[0-9\u2013]+\]", line))


def _in_number(notebook: Notebook) -> int:
    """Number of the cell that runs next."""
    return 1 + int(notebook.ok("print(len(In) - 1)").text)


# ---- the last expression


def test_the_last_expression_shows_per_rank(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\nrank * 10")
    assert sorted(ran.lines()) == ["[0] 0", "[1] 10"]


def test_equal_values_of_all_ranks_are_shown_once(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\nworld_size")
    assert ran.lines() == [f"{BOTH} 2"]


def test_an_assignment_shows_nothing(notebook: Notebook) -> None:
    assert notebook.ok("%%distributed\nnothing_to_see = 1").outputs == []


def test_a_semicolon_keeps_the_value_to_itself(notebook: Notebook) -> None:
    assert notebook.ok("%%distributed\n1 + 1;").outputs == []


def test_equal_tables_are_one_table_labelled_with_all_ranks(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\nimport pandas\npandas.DataFrame({'loss': [0.25]})")
    assert len(tables := _displays(ran, "text/html")) == 1
    assert "<table" in tables[0]
    assert "0.25" in tables[0]
    assert _labels(ran) == [BOTH]


def test_unequal_tables_show_per_rank_with_a_label_each(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\nimport pandas\npandas.DataFrame({'rank': [rank]})")
    assert len(_displays(ran, "text/html")) == 2
    assert _labels(ran) == ["[0]", "[1]"]


def test_html_shows_as_html(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\nfrom IPython.display import HTML\nHTML('<b>bold</b>')")
    assert _displays(ran, "text/html") == ["<b>bold</b>"]


def test_a_matplotlib_figure_shows_as_one_picture_if_the_ranks_drew_the_same(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\n%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1, 2, 3])\nplt.show()"
    )
    assert len(pictures := _displays(ran, "image/png")) == 1
    assert pictures[0].startswith("iVBOR")
    assert _labels(ran) == [BOTH]


def test_different_figures_show_per_rank(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nimport matplotlib.pyplot as plt\n"
        "figure, axes = plt.subplots()\naxes.bar([0], [rank + 1])\nplt.close(figure)\nfigure"
    )
    assert len(_displays(ran, "image/png")) == 2
    assert _labels(ran) == ["[0]", "[1]"]


# ---- display


def test_display_shows_several_values(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\nfrom IPython.display import display\ndisplay('one', 'two')")
    assert ran.lines() == [f"{BOTH} 'one'", f"{BOTH} 'two'"]


def test_an_updated_display_replaces_itself(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nshown = display('before', display_id=True)\nprint('below')\nshown.update('after')"
    )
    assert ran.lines()[0] == f"{BOTH} 'after'"
    assert {line.partition("] ")[2] for line in ran.lines()[1:]} == {"below"}


def test_clear_output_takes_away_what_was_shown(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nfrom IPython.display import clear_output\n"
        "for i in range(3):\n    clear_output(wait=True)\n    print('step', i)"
    )
    assert ran.lines() == [f"{BOTH} step 2"]


# ---- IPython's own syntax


def test_line_magics_work(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\n%time total = sum(range(1000))\ntotal")
    assert "Wall time" in ran.text
    assert "499500" in ran.text


def test_cell_magics_work_inside_the_body(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\n%%time\ntimed = 5")
    assert "Wall time" in ran.text
    assert notebook.ok("%%distributed\ntimed").lines() == [f"{BOTH} 5"]


def test_shell_commands_run_on_every_rank(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\n!echo hello from {rank}")
    assert sorted(ran.lines()) == ["[0] hello from 0", "[1] hello from 1"]


def test_the_output_of_a_shell_command_can_be_kept(notebook: Notebook) -> None:
    assert notebook.ok("%%distributed\nlines = !echo kept\nlines[0]").lines() == [f"{BOTH} 'kept'"]


def test_await_works_at_the_top_level(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\nimport asyncio\nawait asyncio.sleep(0.01, 'slept')")
    assert ran.lines() == [f"{BOTH} 'slept'"]


# ---- errors


def test_a_failing_rank_makes_the_cell_an_error(notebook: Notebook) -> None:
    ran = notebook.fails("%%distributed\nif rank == 1:\n    raise ValueError('only here')")
    assert ran.ename == "RunFailed"
    assert "rank 1 raised ValueError: only here" in ran.traceback
    assert "rank 0 finished" in ran.traceback


def test_the_traceback_counts_lines_as_the_notebook_does(notebook: Notebook) -> None:
    number = _in_number(notebook)
    ran = notebook.fails("%%distributed\nok = 1\n\nbroken = 1 / 0\nnever = 1")
    assert f"Cell In[{number}], line 4" in ran.traceback
    assert "----> 4 broken = 1 / 0" in ran.traceback


def test_the_traceback_shows_source_lines_of_functions_from_ordinary_cells(notebook: Notebook) -> None:
    number = _in_number(notebook)
    notebook.ok("def halve(x):\n    # a comment\n    return x / 0")
    ran = notebook.fails("%%distributed\nhalve(3)")
    assert f"Cell In[{number + 1}], line 2" in ran.traceback
    assert f"Cell In[{number}], line 3, in halve(x)" in ran.traceback
    assert "return x / 0" in ran.traceback


def test_an_error_in_a_function_of_an_earlier_worker_cell_names_that_cell(notebook: Notebook) -> None:
    number = _in_number(notebook)
    notebook.ok("%%distributed\ndef invert(x):\n    return 1 / x")
    ran = notebook.fails("%%distributed\ninvert(0)")
    assert f"Cell In[{number}], line 3, in invert(x)" in ran.traceback
    assert "return 1 / x" in ran.traceback


def test_the_same_error_on_all_ranks_is_shown_once(notebook: Notebook) -> None:
    ran = notebook.fails("%%distributed\n{}['missing']")
    assert "ranks 0\u20131 raised KeyError" in ran.traceback
    assert ran.traceback.count("Traceback (most recent call last)") == 1


def test_variables_outlive_an_error(notebook: Notebook) -> None:
    notebook.fails("%%distributed\nkept = rank\nraise RuntimeError")
    assert sorted(notebook.ok("%%distributed\nkept").lines()) == ["[0] 0", "[1] 1"]


# ---- what is there without asking


def test_rank_local_rank_world_size_and_device_are_there(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed\nrank, local_rank, world_size, device")
    assert sorted(ran.lines()) == [
        "[0] (0, 0, 2, device(type='cpu'))",
        "[1] (1, 1, 2, device(type='cpu'))",
    ]


def test_the_process_group_is_up(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nimport torch, torch.distributed as dist\n"
        "total = torch.ones(1, device=device) * (rank + 1)\ndist.all_reduce(total)\n"
        "dist.get_backend(), dist.get_world_size(), total.item()"
    )
    assert ran.lines() == [f"{BOTH} ('gloo', 2, 3.0)"]


def test_torchrun_s_environment_variables_are_set(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nimport os\n"
        "names = ['RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE', 'MASTER_ADDR', 'GROUP_RANK']\n"
        "assert int(os.environ['MASTER_PORT']) and os.environ['TORCHELASTIC_RUN_ID']\n"
        "' '.join(os.environ[name] for name in names)"
    )
    assert sorted(ran.lines()) == ["[0] '0 0 2 2 127.0.0.1 0'", "[1] '1 1 2 2 127.0.0.1 0'"]


def test_the_kernel_s_environment_is_left_alone(notebook: Notebook) -> None:
    shown = notebook.ok(
        "import os\n{'RANK', 'WORLD_SIZE', 'MASTER_PORT', 'OMP_NUM_THREADS'} & set(os.environ)"
    )
    assert shown.text == "set()"


def test_ranks_draw_different_random_numbers_without_asking(notebook: Notebook) -> None:
    ran = notebook.ok(
        "%%distributed\nimport random, numpy, torch\n"
        "random.random(), float(numpy.random.rand()), torch.rand(1).item()"
    )
    zero, one = (re.findall(r"0\.\d+", line) for line in sorted(ran.lines()))
    assert len(zero) == len(one) == 3
    assert not set(zero) & set(one)


# ---- options


def test_env_is_set_during_the_cell_only(notebook: Notebook) -> None:
    during = notebook.ok(
        "%%distributed --env MODE=fast --env LEVEL=3\nimport os\nos.environ['MODE'], os.environ['LEVEL']"
    )
    after = notebook.ok("%%distributed\n'MODE' in os.environ or 'LEVEL' in os.environ")
    assert during.lines() == [f"{BOTH} ('fast', '3')"]
    assert after.lines() == [f"{BOTH} False"]


def test_the_same_seed_gives_the_same_numbers_but_other_ones_on_every_rank(notebook: Notebook) -> None:
    cell = (
        "%%distributed --seed 7\nimport random, numpy, torch\n"
        "random.random(), float(numpy.random.rand()), torch.rand(1).item()"
    )
    first, second = (sorted(notebook.ok(cell).lines()) for _ in range(2))
    assert first == second
    assert first[0].removeprefix("[0] ") != first[1].removeprefix("[1] ")


def test_a_named_cell_keeps_its_log_under_its_name(notebook: Notebook) -> None:
    notebook.ok("%%distributed --name warm-up\nprint('logged')")
    (folder,) = (notebook.folder / ".quarterdeck" / "runs").glob("*-warm-up")
    assert (folder / "rank-1.log").read_text() == "logged\n"


def test_ranks_chooses_who_runs_the_cell(notebook: Notebook) -> None:
    assert notebook.ok("%%distributed --ranks 0\nrank").lines() == ["[0] 0"]
    assert notebook.ok("%%distributed --ranks 1\nrank").lines() == ["[1] 1"]
    assert sorted(notebook.ok("%%distributed --ranks 0,1\nrank").lines()) == ["[0] 0", "[1] 1"]


def test_rank_is_the_short_form(notebook: Notebook) -> None:
    assert notebook.ok("%%rank 1\nrank, world_size").lines() == ["[1] (1, 2)"]


def test_timeout_ends_the_cell_and_keeps_the_variables(notebook: Notebook) -> None:
    ran = notebook.fails("%%distributed --timeout 0.5\nimport time\nbefore = 1\ntime.sleep(60)")
    assert ran.ename == "RunTimedOut"
    assert "ran longer than its time-out of 0.5 s" in ran.traceback
    assert ran.duration_s < 10
    assert notebook.ok("%%distributed\nbefore").lines() == [f"{BOTH} 1"]


def test_collective_timeout_ends_a_lone_collective(notebook: Notebook) -> None:
    ran = notebook.fails(
        "%%distributed --collective-timeout 0.5\nimport torch, torch.distributed as dist\n"
        "if rank == 0:\n    dist.all_reduce(torch.ones(1))"
    )
    assert "rank 0 raised" in ran.traceback
    assert "Timed out" in ran.traceback
    assert ran.duration_s < 15
    healed = notebook.ok("%%distributed\nones = torch.ones(1)\ndist.all_reduce(ones)\nones.item()")
    assert healed.lines() == [f"{BOTH} 2.0"]


def test_collective_timeout_is_for_one_cell(notebook: Notebook) -> None:
    notebook.ok("%%distributed --collective-timeout 0.5\npass")
    ran = notebook.ok(
        "%%distributed\nimport time, torch, torch.distributed as dist\n"
        "time.sleep(1.5 * rank)\nlate = torch.ones(1)\ndist.all_reduce(late)\nlate.item()"
    )
    assert ran.lines() == [f"{BOTH} 2.0"]


def test_the_backend_can_be_named(notebook: Notebook) -> None:
    ran = notebook.ok("%%distributed --backend gloo\nimport torch.distributed as dist\ndist.get_backend()")
    assert ran.lines() == [f"{BOTH} 'gloo'"]


def test_debug_runs_in_the_notebook_without_touching_its_names(notebook: Notebook) -> None:
    notebook.ok("import os\nouter = [1]\nnotebook_pid = os.getpid()")
    ran = notebook.ok(
        "%%distributed --debug\nouter = 'changed'\ninner = 2\nprint(os.getpid() == notebook_pid, world_size)"
    )
    assert ran.lines() == ["True 1"]
    assert notebook.ok("outer, 'inner' in globals(), 'world_size' in globals()").text == "([1], False, False)"


def test_debug_shows_an_error_with_the_notebook_s_line(notebook: Notebook) -> None:
    number = _in_number(notebook)
    ran = notebook.fails("%%distributed --debug\nx = 1\nx / 0")
    assert ran.ename == "ZeroDivisionError"
    assert f"Cell In[{number}], line 3" in ran.traceback
    assert "quarterdeck/" not in ran.traceback


def test_debug_shows_the_last_expression(notebook: Notebook) -> None:
    assert notebook.ok("%%distributed --debug\nrank, world_size").text == "(0, 1)"


def test_a_setup_cell_runs_now_and_on_a_replaced_worker(notebook: Notebook) -> None:
    notebook.ok("%%distributed --setup\nbase = 40 + rank")
    notebook.fails("%%rank 1\nimport os\nos._exit(3)")
    assert sorted(notebook.ok("%%distributed\nbase").lines()) == ["[0] 40", "[1] 41"]


def test_setup_cells_run_again_after_a_restart_the_newest_version_of_each(notebook: Notebook) -> None:
    notebook.ok("%%distributed --setup\nruns = globals().get('runs', 0) + 1")
    notebook.ok("%%distributed --setup\nruns = globals().get('runs', 0) + 1")
    notebook.ok("%%rank 0 --setup\nonly_here = True")
    notebook.ok("%workers restart -n 3")
    ran = notebook.ok("%%distributed\nruns, 'only_here' in globals()")
    assert sorted(ran.lines()) == ["[0] (1, True)", "[1, 2] (1, False)"]
    notebook.ok("%workers stop")
    assert notebook.ok("%%distributed -n 2\n'runs' in globals()").lines()[-1] == f"{BOTH} False"


def test_a_setup_cell_that_fails_after_a_restart_is_named(notebook: Notebook) -> None:
    notebook.ok("%%distributed --setup\nassert not globals().get('__file__') and world_size == 2")
    ran = notebook.ok("%workers restart -n 1")
    assert "A --setup cell failed when it ran again (rank 0 raised AssertionError)" in ran.text
    notebook.ok("%workers stop")
    assert notebook.ok("%%distributed -n 2\nworld_size").lines()[-1] == f"{BOTH} 2"


# ---- groups of another kind


def test_spawned_workers_serve_cells_like_forked_ones(new_notebook: Notebook) -> None:
    new_notebook.ok("%load_ext quarterdeck")
    ran = new_notebook.ok(
        "%%distributed -n 2 --start-method spawn\nimport torch, torch.distributed as dist\n"
        "sum_ = torch.tensor([float(rank)])\ndist.all_reduce(sum_)\nsum_.item()",
        deadline_s=110,
    )
    assert f"{BOTH} 1.0" in ran.lines()
    assert re.search(r"start method +spawn", new_notebook.ok("%workers").text)
    kept = new_notebook.ok("%%distributed\n!echo {sum_.item()}")
    assert kept.lines() == [f"{BOTH} 1.0"]
