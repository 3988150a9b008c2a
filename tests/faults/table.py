"""What fails and what must hold: each row names the tests that execute it."""

from __future__ import annotations

from tests.faults.row import Row

NOTHING = "nothing"
ITSELF = "by itself"


def killed(kind: str, during: str, lost: str, *tests: str) -> Row:
    """A row of a job whose process is killed with -9."""
    seen = "the job says “its process died”, then “attempt 2 begins”"
    return Row("Worker killed", f"`{kind}`: {during}", seen, lost, "by itself, within a minute", tests, kind)


ROWS: tuple[Row, ...] = (
    Row(
        "Label Studio killed", "a push of predictions or an import",
        "the job waits up to 44 s, then fails with “… cannot be reached”", NOTHING,
        "by itself, later `tator jobs retry`; each prediction and task is there once",
        (
            "tests/faults/test_label_studio.py::test_a_push_goes_through_once",
            "tests/faults/test_label_studio.py::test_an_import_goes_through_once",
            "tests/faults/test_label_studio.py::test_what_does_not_pass_is_a_sentence",
            "tests/tweak/test_tweak.py::test_a_label_studio_that_is_away_for_a_moment_is_waited_for",
        ),
    ),
    Row(
        "Label Studio killed", "a click whose picture must be fetched",
        "the box stays as drawn; the strip says “… cannot be reached for the picture”",
        NOTHING, "by itself, at the next click",
        ("tests/wire/test_bad_pictures.py::test_image_server_away",),
    ),
    Row(
        "Label Studio killed", "somebody is signed in to the dashboard",
        "the page goes on for 15 minutes with what was last known; then it asks to sign in", NOTHING, ITSELF,
        (
            "tests/dashboard/test_sessions.py::test_a_label_studio_that_does_not_answer_is_trusted_for_a_while",
            "tests/dashboard/test_team.py::test_it_opens_at_once_where_label_studio_does_not_answer",
        ),
    ),
    Row(
        "Label Studio slow", "a push or an import: the answer comes later than anybody waits for",
        "the job waits; “… did not answer in time; is it busy or starting?”", NOTHING,
        "by itself; what came through late is found and not sent again, later doubles are deleted",
        (
            "tests/faults/test_label_studio.py::test_a_push_goes_through_once",
            "tests/push/test_push.py::test_a_request_that_comes_through_after_it_was_sent_again_leaves_no_double",
        ),
    ),
    Row(
        "Label Studio slow", "a click whose picture must be fetched",
        "the strip says “… did not send the picture within … s”; `/health` stays quick",
        NOTHING, "by itself, at the next click",
        ("tests/wire/test_bad_pictures.py::test_slow_image_server",),
    ),
    Row(
        "Label Studio answers 500", "a push, an import, the exchange of a token",
        "the job waits up to 44 s, then fails with “… answers 500: …”", NOTHING, "by itself, later `tator jobs retry`",
        (
            "tests/faults/test_label_studio.py::test_a_push_goes_through_once",
            "tests/faults/test_label_studio.py::test_an_import_goes_through_once",
            "tests/faults/test_label_studio.py::test_the_other_client_says_the_same",
            "tests/faults/test_label_studio.py::test_a_token_that_cannot_be_exchanged_now_is_no_refusal",
        ),
    ),
    Row(
        "Label Studio answers 429", "a push, an import, the exchange of a token",
        "as with 500", NOTHING, "by itself, later `tator jobs retry`",
        (
            "tests/faults/test_label_studio.py::test_a_push_goes_through_once",
            "tests/faults/test_label_studio.py::test_an_import_goes_through_once",
            "tests/faults/test_label_studio.py::test_a_token_that_cannot_be_exchanged_now_is_no_refusal",
        ),
    ),
    Row(
        "Label Studio breaks off in half a body",
        "a push, an import, a list, the exchange of a token; or a proxy's page comes",
        "the job waits, then fails with “… broke off its answer; try again”",
        NOTHING, "by itself, later `tator jobs retry`",
        (
            "tests/faults/test_label_studio.py::test_a_push_goes_through_once",
            "tests/faults/test_label_studio.py::test_an_import_goes_through_once",
            "tests/faults/test_label_studio.py::test_the_other_client_says_the_same",
        ),
    ),
    Row(
        "Label Studio breaks off in half a body", "a click whose picture must be fetched",
        "the strip says “… broke off in the middle of the picture; try again”", NOTHING, "by itself, at the next click",
        ("tests/wire/test_bad_pictures.py::test_a_transfer_that_is_cut",),
    ),
    Row(
        "Redis killed", "a job runs", "nothing for half a minute; pages of jobs say “Redis does not answer …”", NOTHING,
        "by itself: `tator up` starts it again, and its append-only file has all jobs",
        (
            "tests/jobs/test_worker.py::test_jobs_outlive_a_restart_of_redis",
            "tests/dashboard/test_jobs.py::test_redis_that_is_away_is_a_sentence",
            "tests/dashboard/test_jobs.py::test_the_history_survives_a_killed_redis",
        ),
    ),
    Row(
        "Redis killed", "annotations are submitted", "nothing",
        NOTHING, "by itself; what is due is trained at the next annotation",
        ("tests/learning/test_follow.py::test_no_redis_is_no_reason_to_stop_following",),
    ),
    Row(
        "Redis full", "a job runs, another is started, a worker starts",
        "the running job stands still; starting says “Redis is full …”; clicks go on",
        NOTHING, "by itself, as soon as there is room",
        (
            "tests/faults/test_redis.py::test_a_full_redis_holds_jobs_up_and_ends_none",
            "tests/faults/test_redis.py::test_a_worker_may_start_while_redis_is_full",
        ),
    ),
    Row(
        "Redis restarted empty", "workers wait, jobs wait or run",
        "the list of jobs is empty; clicks go on",
        "the list of jobs and what waited; a tuning begins anew. Nothing in Label Studio, no model, no embedding",
        "workers sign in again by themselves; start the jobs again: pushes and imports send what is missing",
        (
            "tests/faults/test_redis.py::test_an_emptied_redis_has_its_workers_again",
            "tests/sam3_training/test_job.py::test_jobs_that_redis_may_know_are_kept_while_it_does_not_answer",
            "tests/relabel/test_relabel.py::test_without_its_notes_a_job_still_pushes_each_once",
        ),
    ),
    killed(
        "clip", "embedding, fitting", NOTHING,
        "tests/training/test_killed.py::test_a_training_goes_on_after_kill_9_to_the_same_head",
        "tests/learning/test_embeddings.py::test_a_writer_that_is_killed_leaves_every_value_right",
    ),
    killed(
        "qwen", "training", "the steps since the last checkpoint, done again to the same weights",
        "tests/qwen/test_worker.py::test_a_worker_that_is_killed_leaves_the_rest_to_the_next",
        "tests/qwen/test_train.py::test_a_killed_training_ends_as_if_nothing_had_been",
        "tests/qwen/test_train.py::test_a_checkpoint_that_a_kill_cut_short_is_not_gone_on_from",
        "tests/qwen/test_job.py::test_a_job_that_had_registered_its_run_before_it_died_does_not_do_so_twice",
    ),
    killed(
        "sam3", "training", "the steps since the last checkpoint, done again to the same curve",
        "tests/sam3_training/test_worker.py::test_a_worker_that_is_killed_leaves_the_rest_to_the_next",
        "tests/sam3_training/test_train.py::test_a_killed_training_has_the_curve_of_an_undisturbed_one",
        "tests/sam3_training/test_job.py::test_a_job_that_had_registered_its_run_before_it_died_does_not_do_so_twice",
    ),
    killed(
        "relabel", "looking, pushing", NOTHING,
        "tests/relabel/test_project.py::test_a_killed_job_offers_each_once",
        "tests/relabel/test_relabel.py::test_a_job_that_is_taken_up_again_pushes_each_once",
    ),
    killed(
        "tweak", "looking, changing, pushing", NOTHING,
        "tests/tweak/test_project.py::test_killed_in_the_middle_every_annotation_is_changed_once",
        "tests/tweak/test_tweak.py::test_killed_around_a_change_each_annotation_is_changed_once",
    ),
    killed(
        "prelabel", "asking, pushing; Qwen and SAM 3", NOTHING,
        "tests/prelabel/test_prelabel.py::test_a_killed_job_goes_on_and_asks_and_pushes_nothing_twice",
        "tests/prelabel/test_sam3.py::test_a_killed_job_goes_on_and_asks_and_pushes_nothing_twice",
        "tests/studio/test_words.py::test_killed_in_the_middle_every_task_has_its_prediction_once",
    ),
    killed(
        "warm", "encoding", NOTHING,
        "tests/jobs/test_warm.py::test_killed_twice_in_the_middle_nothing_is_encoded_twice",
        "tests/engine/test_store.py::test_a_writer_that_is_killed_leaves_no_half_embedding",
    ),
    killed(
        "polygons", "building, two hosts", "the picture at hand, made again",
        "tests/segmentation/test_build.py::test_two_hosts_one_is_killed_in_the_middle",
        "tests/segmentation/test_build.py::test_stopped_twice_each_picture_is_encoded_once",
    ),
    killed(
        "import", "before, during and after a request", NOTHING,
        "tests/importing/test_exactly_once.py::test_after_kill_9_the_next_run_completes",
    ),
    killed(
        "export", "writing; written and not yet entered", "the half folder, removed and written again",
        "tests/faults/test_killed_kinds.py::test_export",
        "tests/faults/test_killed_kinds.py::test_an_export_that_was_written_and_not_entered",
    ),
    killed("quality", "reading a project", NOTHING, "tests/faults/test_killed_kinds.py::test_quality"),
    killed("undo", "deleting", NOTHING, "tests/faults/test_killed_kinds.py::test_undo"),
    killed("register", "reading pictures", NOTHING, "tests/faults/test_killed_kinds.py::test_register_and_preview"),
    killed("preview", "counting", NOTHING, "tests/faults/test_killed_kinds.py::test_register_and_preview"),
    Row(
        "Worker killed", "a push: noted and not sent, on its way, answered and not noted", "as above", NOTHING, ITSELF,
        (
            "tests/push/test_push.py::test_after_kill_9_at_a_moment_the_next_run_completes",
            "tests/studio/test_data.py::test_a_worker_that_is_killed_leaves_each_prediction_once",
        ),
    ),
    Row(
        "Worker killed", "the worker itself, not only its job; again and again",
        "after the third time “Its process died 3 times, perhaps for want of memory …”", NOTHING,
        "the next worker goes on within a minute; after the third time `tator jobs retry`",
        (
            "tests/jobs/test_worker.py::test_a_killed_worker_takes_its_job_down_and_the_next_one_goes_on",
            "tests/jobs/test_worker.py::test_a_living_worker_takes_over_from_a_killed_one",
            "tests/jobs/test_worker.py::test_a_dying_process_is_replaced_and_given_up_after_the_third",
            "tests/jobs/test_worker.py::test_a_running_job_whose_worker_is_dead_can_be_cancelled",
        ),
    ),
    Row(
        "Backend killed", "a click", "Label Studio says that the backend does not answer; the drawing stays", NOTHING,
        "by itself: `tator up` starts the web process again, within seconds",
        ("tests/faults/test_backend_killed.py::test_the_web_process_is_killed_during_a_click",),
    ),
    Row(
        "Backend killed", "a store write: suggestions, examples, heads, choices", "nothing", NOTHING, ITSELF,
        (
            "tests/faults/test_records.py::test_a_process_that_is_killed_while_it_writes_loses_nothing_that_it_wrote",
            "tests/learning/test_projects.py::test_half_a_line_of_a_crash_spoils_no_other",
            "tests/vlm/test_registry.py::test_a_training_that_fails_to_write_leaves_nothing",
            "tests/faults/test_records.py::test_what_a_killed_process_was_filling_goes_and_what_a_living_one_fills_stays",
        ),
    ),
    Row(
        "Engine killed", "a click", "the drawing stays, the strip says why; the next click is answered", NOTHING,
        "by itself: `tator up` starts it again; warm pictures come from the disk",
        (
            "tests/faults/test_backend_killed.py::test_the_engine_is_killed_during_a_click",
            "tests/engine/test_warm.py::test_a_restart_encodes_nothing_again",
            "tests/test_lease.py::test_an_engine_that_was_killed_during_a_click_holds_nothing_up_for_long",
        ),
    ),
    Row(
        "Engine killed", "it is stuck rather than dead, as with a driver that hangs",
        "after 95 s the drawing stays and the strip says “… has not answered … end its process”", NOTHING,
        "end its process; `tator up` starts it again",
        ("tests/faults/test_backend_killed.py::test_an_engine_that_is_stuck_holds_no_editor_up",),
    ),
    Row(
        "Engine killed", "a job needs it", "the job waits, then fails with “Tator's engine …”",
        NOTHING, "by itself, later `tator jobs retry`",
        (
            "tests/training/test_killed.py::test_a_killed_engine_fails_the_training_with_a_sentence",
            "tests/training/test_killed.py::test_a_training_waits_for_an_engine_that_is_started_again",
            "tests/prelabel/test_prelabel.py::test_an_engine_that_is_away_for_a_moment_is_waited_for",
        ),
    ),
    Row(
        "Disk full", "a click", "the answer as ever; on a new picture the strip says “The disk is full …”",
        "the record of what was suggested meanwhile", "by itself, as soon as there is room",
        (
            "tests/faults/test_disk.py::test_a_click_is_answered_though_nothing_can_be_noted",
            "tests/engine/test_store.py::test_a_full_disk_is_said_and_harms_nothing",
            "tests/engine/test_warm.py::test_a_disk_that_is_full_costs_no_click",
        ),
    ),
    Row(
        "Disk full", "a job writes; Redis writes its log",
        "“The disk of its machine is full; make room …”; jobs of a Redis without disk wait",
        NOTHING,
        "`tator jobs retry`; what waits goes on by itself",
        ("tests/faults/test_disk.py::test_a_job_ends_with_a_sentence_and_redis_is_waited_for",),
    ),
    Row(
        "Clock jump", "jobs run, requests are on their way, clicks hold the device", "nothing", NOTHING, ITSELF,
        (
            "tests/faults/test_clock.py::test_a_process_stays_the_one_it_was",
            "tests/faults/test_clock.py::test_a_running_job_is_not_overdue_by_the_clock",
            "tests/faults/test_clock.py::test_a_request_on_its_way_is_waited_for_as_long_as_it_may_take",
            "tests/faults/test_clock.py::test_news_from_before_the_clock_went_back_is_learned_once",
            "tests/faults/test_clock.py::test_the_time_of_day_measures_no_duration",
            "tests/quality/test_outcomes.py::test_before_and_after_by_the_clocks_of_two_hosts",
        ),
    ),
    Row(
        "Token expired", "a job is in the middle of it", "nothing",
        NOTHING, "by itself: a new one is got for the personal access token",
        ("tests/faults/test_label_studio.py::test_a_token_that_ends_in_the_middle_is_renewed",),
    ),
    Row(
        "Token expired", "revoked while a job runs, or while somebody is signed in",
        "the job fails with “… refuses the personal access token; make a new one …”; a page asks to sign in", NOTHING,
        "`LABEL_STUDIO_API_KEY` anew, `tator jobs retry`: what was sent is not sent again",
        (
            "tests/faults/test_label_studio.py::test_a_token_that_is_revoked_in_the_middle_is_told_and_the_rest_follows",
            "tests/faults/test_label_studio.py::test_a_refused_personal_token_is_not_asked_for_twice",
            "tests/dashboard/test_sessions.py::test_a_revoked_token_is_signed_out",
        ),
    ),
    Row(
        "Project deleted", "it trains, and six more jobs of it run or wait",
        "each job ends, with “… does not have it (404) …” or done; no traceback", "the project, as asked for",
        "nothing to do; other projects go on",
        ("tests/faults/test_project_deleted.py::test_jobs_of_a_project_that_is_deleted_end_with_a_sentence",),
    ),
    Row(
        "Configuration changed", "a class was removed or renamed, a tag renamed, between training and use",
        "the person's own label stays; answers are written for the tags that are there", NOTHING,
        "by itself; `tator train clip` teaches the new names",
        (
            "tests/faults/test_changed.py::test_a_class_that_the_configuration_lost_is_not_answered",
            "tests/faults/test_changed.py::test_a_tag_that_was_renamed_takes_the_answer",
            "tests/prelabel/test_prelabel.py::test_a_configuration_that_cannot_take_the_answer_is_said",
            "tests/wire/test_words.py::test_kept_words_of_a_field_that_is_gone",
        ),
    ),
    Row(
        "Image changed", "under the same name, between two clicks, two imports, or labels and training",
        "answers follow it within `TATOR_IMAGE_RECHECK_SECONDS`; a training leaves its old boxes out and says so",
        NOTHING, ITSELF,
        (
            "tests/faults/test_changed.py::test_a_picture_that_was_exchanged_is_another_picture",
            "tests/importing/test_importing.py::test_the_same_name_with_another_content_is_another_picture",
        ),
    ),
    Row(
        "Two workers, one job", "both take it, or one wakes up after it was taken for dead", "the job, once",
        NOTHING, ITSELF,
        (
            "tests/jobs/test_worker.py::test_two_workers_never_run_one_job_twice",
            "tests/jobs/test_records.py::test_an_older_attempt_changes_nothing_any_more",
            "tests/push/test_push.py::test_two_at_once_are_refused",
            "tests/importing/test_exactly_once.py::test_two_at_once_are_refused",
        ),
    ),
    Row(
        "Model file damaged", "a head: cut, garbage, of other weights",
        "the strip names it and the former head answers, or the person's own label stays", NOTHING,
        "`tator models rollback`, or `tator train clip`",
        (
            "tests/learning/test_registry.py::test_a_damaged_head_replaces_none_that_works",
            "tests/learning/test_registry.py::test_a_damaged_head_is_refused_in_a_sentence",
            "tests/learning/test_registry.py::test_a_damaged_archive_is_refused_in_a_sentence",
            "tests/test_head.py::test_a_damaged_file_is_refused",
        ),
    ),
    Row(
        "Model file damaged", "weights of a segmenter or encoder: cut, garbage, a pickle",
        "`tator up` says which file and what to do", NOTHING, "put the file back, or fetch it anew",
        (
            "tests/adapters/test_weights.py::test_a_truncated_file_and_a_folder",
            "tests/adapters/test_weights.py::test_nothing_in_a_file_is_executed",
            "tests/test_starter_encoder.py::test_damaged_and_missing_files_are_refused",
            "tests/sam3/test_loading.py::test_missing_and_damaged_files",
        ),
    ),
    Row(
        "Model file damaged", "a run of Qwen or SAM 3",
        "the strip names it; the base model, or the former run, answers", NOTHING,
        "`tator models rollback` of its kind, or tune anew",
        (
            "tests/vlm/test_registry.py::test_a_damaged_run_replaces_none_that_works",
            "tests/qwen/test_train.py::test_a_damaged_base_is_said",
            "tests/sam3_training/test_registry.py::test_without_its_configuration_a_run_is_damaged",
        ),
    ),
    Row(
        "Model file damaged", "an embedding in the store or the cache, a picture in the store",
        "nothing, or one sentence at one click",
        NOTHING, "by itself: made, or fetched, anew",
        (
            "tests/engine/test_warm.py::test_a_damaged_embedding_is_made_anew",
            "tests/engine/test_store.py::test_a_cut_file_is_dropped",
            "tests/learning/test_embeddings.py::test_a_damaged_file_is_made_anew",
            "tests/faults/test_changed.py::test_a_picture_file_that_is_damaged_is_fetched_again",
        ),
    ),
    Row(
        "Record damaged", "suggestions, examples or quality record: garbage, cut, its beginning gone",
        "nothing; the log names the file that was put aside", "nothing: the damaged file is kept beside the new one",
        "by itself: examples are read again at the next training; *Read the project again* on the page Quality",
        (
            "tests/faults/test_records.py::test_a_damaged_record_is_put_aside_and_a_new_one_begun",
            "tests/faults/test_records.py::test_examples_that_were_begun_anew_are_read_from_label_studio",
            "tests/faults/test_records.py::test_a_record_that_breaks_meanwhile_costs_no_answer",
        ),
    ),
    Row(
        "Record damaged", "a project's choices, a note of a push", "a sentence that names the file",
        NOTHING, "delete the file that is named",
        (
            "tests/learning/test_projects.py::test_a_damaged_file_is_named",
            "tests/push/test_push.py::test_a_damaged_note_is_said",
        ),
    ),
)  # fmt: skip
"""All rows, in the order of the documentation."""
