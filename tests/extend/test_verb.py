"""A verb from outside the package, by a plugin: it is run by its name, and listed among the verbs."""

import pytest

from extend.test_plugins import hashret

VERB = '''
import click

from hashret import open_database
from hashret.cli import main


@main.command()
@click.argument("index")
def count(index: str) -> None:
    """Print the number of photographs in INDEX."""
    click.echo(len(open_database(index)))
'''


@pytest.fixture
def plugin(tmp_path):
    (tmp_path / "my_verbs.py").write_text(VERB)
    return tmp_path


def test_a_verb_of_a_plugin_runs_and_ends_as_others_do(plugin, index_folder):
    assert hashret(plugin, "count", index_folder, plugins="my_verbs")[0] == "36\n"
    _, [line] = hashret(plugin, "count", "nothing", plugins="my_verbs", code=2)
    assert line.startswith("hashret: no index at nothing")
    _, [line] = hashret(plugin, "count", index_folder, code=2)
    assert line.startswith("hashret: No such command 'count'.")


def test_a_verb_of_a_plugin_is_listed(plugin):
    assert "count        Print the number of photographs" in hashret(plugin, "--help", plugins="my_verbs")[0]
