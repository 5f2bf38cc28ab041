// SPDX-License-Identifier: Apache-2.0
/* The intrusive list: order, and removal that may be repeated. */
#include "test.h"

#include "base/list.h"

struct item {
    int before;
    struct list link;
    int value;
};

static void assert_values(struct list *head, const int *values, size_t count)
{
    struct list *link = head;
    for (size_t i = 0; i < count; i++) {
        assert_ptr_equal(link->next->previous, link);
        link = link->next;
        assert_int_equal(CONTAINER_OF(link, struct item, link)->value, values[i]);
    }
    assert_ptr_equal(link->next, head);
    assert_ptr_equal(head->previous, link);
    size_t seen = 0;
    LIST_EACH (struct item, item, head, link)
        assert_int_equal(item->value, values[seen++]);
    assert_int_equal(seen, count);
}

static void takes_in_the_order_of_appending(void **state)
{
    (void)state;
    struct list head;
    struct item items[] = {{.value = 1}, {.value = 2}, {.value = 3}};
    list_init(&head);
    assert_true(list_is_empty(&head));
    assert_null(list_take_first(&head));
    for (size_t i = 0; i < 3; i++)
        list_append(&head, &items[i].link);
    assert_false(list_is_empty(&head));
    assert_values(&head, (int[]){1, 2, 3}, 3);
    for (size_t i = 0; i < 3; i++) {
        struct list *link = list_take_first(&head);
        assert_ptr_equal(CONTAINER_OF(link, struct item, link), &items[i]);
        assert_false(list_is_linked(link));
    }
    assert_true(list_is_empty(&head));
}

static void removes_from_the_middle_and_twice(void **state)
{
    (void)state;
    struct list head;
    struct item items[] = {{.value = 1}, {.value = 2}, {.value = 3}};
    list_init(&head);
    for (size_t i = 0; i < 3; i++)
        list_append(&head, &items[i].link);
    assert_true(list_is_linked(&items[1].link));
    list_remove(&items[1].link);
    assert_false(list_is_linked(&items[1].link));
    list_remove(&items[1].link);
    assert_values(&head, (int[]){1, 3}, 2);
}

static void appends_a_whole_list_and_empties_it(void **state)
{
    (void)state;
    struct list to;
    struct list from;
    struct item items[] = {{.value = 1}, {.value = 2}, {.value = 3}, {.value = 4}};
    list_init(&to);
    list_init(&from);
    list_append_all(&to, &from);
    assert_true(list_is_empty(&to));

    list_append(&from, &items[0].link);
    list_append(&from, &items[1].link);
    list_append_all(&to, &from);
    assert_true(list_is_empty(&from));
    assert_values(&to, (int[]){1, 2}, 2);

    list_append(&from, &items[2].link);
    list_append(&from, &items[3].link);
    list_append_all(&to, &from);
    assert_true(list_is_empty(&from));
    assert_values(&to, (int[]){1, 2, 3, 4}, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(takes_in_the_order_of_appending),
        cmocka_unit_test(removes_from_the_middle_and_twice),
        cmocka_unit_test(appends_a_whole_list_and_empties_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
