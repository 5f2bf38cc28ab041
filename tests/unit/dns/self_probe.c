// SPDX-License-Identifier: Apache-2.0
/* The question that a process recognizes as its own (FAULTS G11). */
#include "test.h"

#include <stdlib.h>

#include "dns/name.h"
#include "dns/self_probe.h"

static const struct siphash_key key = {11, 22};
static const struct siphash_key another = {11, 23};

static void G11_question_is_recognized_by_its_maker_alone(void **state)
{
    (void)state;
    struct question question;
    self_probe_question(&key, 0x0123456789abcdef, &question);
    assert_int_equal(name_measure(question.name, sizeof question.name), SELF_PROBE_NAME_LENGTH);
    assert_int_equal(question.name_length, SELF_PROBE_NAME_LENGTH);
    assert_memory_equal(question.name + 1, "0123456789abcdef", 16);
    assert_true(self_probe_is_ours(&key, &question));
    assert_false(self_probe_is_ours(&another, &question));
}

static void G11_any_other_question_is_not(void **state)
{
    (void)state;
    struct question question;
    self_probe_question(&key, 1, &question);
    for (size_t i = 0; i < question.name_length; i++) {
        struct question changed = question;
        changed.name[i] ^= 1;
        assert_false(self_probe_is_ours(&key, &changed));
        changed.name[i] = 'x';
        assert_int_equal(self_probe_is_ours(&key, &changed), question.name[i] == 'x');
    }
    struct question changed = question;
    changed.type = TYPE_A;
    assert_false(self_probe_is_ours(&key, &changed));
    changed = question;
    changed.class = CLASS_CH;
    assert_false(self_probe_is_ours(&key, &changed));
}

static void G11_answer_comes_from_its_maker_alone(void **state)
{
    (void)state;
    struct question question;
    struct self_probe_answer probe;
    self_probe_question(&key, 77, &question);
    self_probe_make_answer(&key, &question, &probe);
    assert_true(self_probe_is_answered(&key, &question, &probe.answer));
    probe.body[probe.answer.body_length - 1] ^= 1;
    assert_false(self_probe_is_answered(&key, &question, &probe.answer));
    self_probe_make_answer(&another, &question, &probe);
    assert_false(self_probe_is_answered(&key, &question, &probe.answer));
    const struct answer none = {.rcode = RCODE_NXDOMAIN};
    assert_false(self_probe_is_answered(&key, &question, &none));
    /* The answer to another question. */
    struct question other;
    self_probe_question(&key, 78, &other);
    self_probe_make_answer(&key, &other, &probe);
    assert_false(self_probe_is_answered(&key, &question, &probe.answer));
}

static void G11_answer_is_well_formed_and_never_kept(void **state)
{
    (void)state;
    static struct answer_scratch scratch;
    struct question question;
    struct self_probe_answer probe;
    struct answer checked;
    uint8_t message[256];
    self_probe_question(&key, 5, &question);
    self_probe_make_answer(&key, &question, &probe);
    struct writer writer = writer_over(message, sizeof message);
    write_u16(&writer, 1);
    write_u16(&writer, DNS_FLAG_QR | DNS_FLAG_RD | DNS_FLAG_RA);
    write_u32(&writer, 1 << 16 | 1);
    write_u32(&writer, 0);
    write_bytes(&writer, question.name, question.name_length);
    write_u16(&writer, TYPE_TXT);
    write_u16(&writer, CLASS_IN);
    write_bytes(&writer, probe.answer.body, probe.answer.body_length);
    assert_false(writer.failed);
    assert_int_equal(
        message_check_answer(message, writer_length(&writer), &question, &scratch, &checked),
        STATUS_OK);
    assert_int_equal(checked.kind, ANSWER_POSITIVE);
    assert_int_equal(checked.ttl_s, 0);
    assert_int_equal(checked.ttl_count, probe.answer.ttl_count);
    assert_int_equal(checked.ttl_offsets[0], probe.ttl_offset);
    assert_true(self_probe_is_answered(&key, &question, &checked));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(G11_question_is_recognized_by_its_maker_alone),
        cmocka_unit_test(G11_any_other_question_is_not),
        cmocka_unit_test(G11_answer_comes_from_its_maker_alone),
        cmocka_unit_test(G11_answer_is_well_formed_and_never_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
