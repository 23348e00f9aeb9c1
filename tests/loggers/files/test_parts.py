from millpond_loggers.files.parts import instance_name


def test_the_file_of_a_single_process_is_called_as_it_is() -> None:
    assert instance_name("details.csv", 1, 1) == "details.csv"


def test_each_of_several_has_its_number_before_the_suffix() -> None:
    names = [instance_name("details.csv", instance, 3) for instance in (1, 2, 3)]
    assert names == ["details-1.csv", "details-2.csv", "details-3.csv"]


def test_only_the_last_suffix_stays_behind_the_number() -> None:
    assert instance_name("run.v2.log", 2, 2) == "run.v2-2.log"
    assert instance_name("rows", 2, 2) == "rows-2"
