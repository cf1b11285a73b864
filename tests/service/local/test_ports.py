from __future__ import annotations

import socket

import pytest

from service.local.ports import RANGE_FILE, choose_ports, free_port, is_free


@pytest.fixture
def taken():
    with socket.socket() as server:
        server.bind(("127.0.0.1", free_port()))
        server.listen()
        yield server.getsockname()[1]


def test_a_port_with_a_server_is_not_free(taken):
    assert not is_free(taken)


def test_the_preferred_port_is_chosen_when_it_is_free():
    wanted = free_port()
    assert choose_ports({"api": wanted}) == {"api": wanted}


def test_another_port_is_chosen_when_the_preferred_one_is_taken(taken):
    chosen = choose_ports({"api": taken})["api"]
    assert chosen != taken
    assert is_free(chosen)


def test_two_children_never_get_the_same_port():
    wanted = free_port()
    chosen = choose_ports({"postgres": wanted, "redis": wanted, "milvus": 0})
    assert len(set(chosen.values())) == 3


def test_a_port_outside_the_range_of_outgoing_connections_is_taken():
    first_outgoing = int(RANGE_FILE.read_text().split()[0])
    assert all(free_port() < first_outgoing for _ in range(20))
