"""The thread tuner on a simulated machine."""

from innkeeper.backends.llama_cpp.threads import ThreadTuner


class Machine:
    """Time of a step by the number of threads, and a clock that the steps move."""

    def __init__(self, seconds: dict[int, float]) -> None:
        self.seconds = seconds
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def run(self, tuner: ThreadTuner, steps: int) -> list[int]:
        used = []
        for _ in range(steps):
            used.append(tuner.num_threads)
            took = self.seconds[tuner.num_threads]
            self.time += took
            tuner.observe(1, took)
        return used


def tuned(seconds: dict[int, float], steps: int = 300) -> tuple[Machine, ThreadTuner]:
    machine = Machine(seconds)
    tuner = ThreadTuner(max(seconds), now=machine.now)
    machine.run(tuner, steps)
    return machine, tuner


def most_used(used: list[int]) -> int:
    return max(set(used), key=used.count)


def test_idle_machine_keeps_all_its_cores() -> None:
    machine, tuner = tuned({4: 0.03, 2: 0.05, 1: 0.1})
    assert most_used(machine.run(tuner, 200)) == 4


def test_fewer_threads_are_found_where_they_are_faster() -> None:
    machine, tuner = tuned({4: 0.05, 2: 0.03, 1: 0.06})
    assert most_used(machine.run(tuner, 200)) == 2


def test_contention_is_answered_within_a_few_steps() -> None:
    machine, tuner = tuned({2: 0.03, 1: 0.05})
    machine.seconds = {2: 2.2, 1: 0.05}
    used = machine.run(tuner, 12)
    assert used.count(2) <= 4
    assert used[-1] == 1


def test_cores_come_back_when_the_contention_ends() -> None:
    machine, tuner = tuned({2: 0.03, 1: 0.05})
    machine.seconds = {2: 2.2, 1: 0.05}
    machine.run(tuner, 200)
    machine.seconds = {2: 0.03, 1: 0.05}
    machine.run(tuner, 3000)
    assert most_used(machine.run(tuner, 300)) == 2


def test_trials_cost_little_where_nothing_is_gained() -> None:
    machine, tuner = tuned({2: 0.03, 1: 0.06}, steps=2000)
    used = machine.run(tuner, 2000)
    assert used.count(1) <= 20


def test_a_number_that_was_asked_for_stays() -> None:
    machine = Machine({3: 0.1})
    tuner = ThreadTuner(3, is_fixed=True, now=machine.now)
    assert set(machine.run(tuner, 100)) == {3}
