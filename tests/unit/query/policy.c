// SPDX-License-Identifier: Apache-2.0
/* Verdicts of policy.c. */
#include "fake_upstream.h"

#include "query/policy.h"

static struct query query;

static enum policy_verdict judge(struct bench *bench, const struct transport *transport,
                                 const char *client, const char *name, size_t name_length,
                                 uint16_t type)
{
    query.origin.transport = transport;
    assert_true(address_parse(client, 53, &query.origin.client) == STATUS_OK);
    query.message.question.type = type;
    query.message.question.class = CLASS_IN;
    query.message.question.name_length = (uint8_t)name_length;
    memcpy(query.message.question.name, name, name_length);
    return policy_judge(&bench->config.snapshot, &query);
}

#define NAME(text) text, sizeof(text)

static void H11_only_allowed_clients_are_resolved(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(judge(bench, &datagrams, "127.9.9.9", NAME("\1a"), TYPE_A), POLICY_RESOLVE);
    assert_int_equal(judge(bench, &datagrams, "192.0.2.1", NAME("\1a"), TYPE_A), POLICY_REFUSE);
    assert_int_equal(judge(bench, &datagrams, "::1", NAME("\1a"), TYPE_A), POLICY_REFUSE);
    assert_int_equal(judge(bench, &datagrams, "::ffff:127.0.0.1", NAME("\1a"), TYPE_A),
                     POLICY_RESOLVE);
}

static void RFC9462_resolver_arpa_is_never_asked(void **state)
{
    struct bench *bench = *state;
    assert_int_equal(judge(bench, &datagrams, "127.0.0.1", NAME("\x08resolver\4arpa"), 64),
                     POLICY_NODATA);
    assert_int_equal(judge(bench, &datagrams, "127.0.0.1", NAME("\4_dns\x08resolver\4arpa"), 64),
                     POLICY_NODATA);
    assert_int_equal(judge(bench, &datagrams, "127.0.0.1", NAME("\x0bxx\x08resolver\4arpa"), 64),
                     POLICY_RESOLVE);
    assert_int_equal(judge(bench, &datagrams, "127.0.0.1", NAME("\4arpa"), 64), POLICY_RESOLVE);
}

static void RFC8482_any_is_minimal_over_datagrams_only(void **state)
{
    struct bench *bench = *state;
    query.message.question.dnssec_ok = false;
    assert_int_equal(judge(bench, &datagrams, "127.0.0.1", NAME("\1a"), TYPE_ANY),
                     POLICY_MINIMAL_ANY);
    assert_int_equal(judge(bench, &stream_transport, "127.0.0.1", NAME("\1a"), TYPE_ANY),
                     POLICY_RESOLVE);
}

static void RFC8482_any_with_DO_is_sent_to_tcp(void **state)
{
    struct bench *bench = *state;
    query.message.question.dnssec_ok = true;
    assert_int_equal(judge(bench, &datagrams, "127.0.0.1", NAME("\1a"), TYPE_ANY), POLICY_TRUNCATE);
    assert_int_equal(judge(bench, &datagrams, "192.0.2.1", NAME("\1a"), TYPE_ANY), POLICY_REFUSE);
    assert_int_equal(judge(bench, &datagrams, "127.0.0.1", NAME("\1a"), TYPE_A), POLICY_RESOLVE);
    assert_int_equal(judge(bench, &stream_transport, "127.0.0.1", NAME("\1a"), TYPE_ANY),
                     POLICY_RESOLVE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(H11_only_allowed_clients_are_resolved),
        TEST(RFC9462_resolver_arpa_is_never_asked),
        TEST(RFC8482_any_is_minimal_over_datagrams_only),
        TEST(RFC8482_any_with_DO_is_sent_to_tcp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
