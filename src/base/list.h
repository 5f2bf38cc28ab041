// SPDX-License-Identifier: Apache-2.0
/* Intrusive doubly linked list: the link is a member of the object, nothing is allocated.
 *
 * A head and an unlinked link both point at themselves. */
#ifndef BASE_LIST_H
#define BASE_LIST_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>

struct list {
    struct list *previous;
    struct list *next;
};

/* The object of type `type` whose member `member` is at `pointer`. */
#define CONTAINER_OF(pointer, type, member) ((type *)((char *)(pointer)-offsetof(type, member)))

/* Walks the objects of a list whose links are their `member`; the one in hand has to stay in it. */
#define LIST_EACH(type, object, head, member)                                   \
    for (type *object = LIST_OBJECT_((head)->next, head, type, member); object; \
         object = LIST_OBJECT_(object->member.next, head, type, member))
#define LIST_OBJECT_(link, head, type, member) \
    ((link) == (head) ? NULL : CONTAINER_OF(link, type, member))

static inline void list_init(struct list *link)
{
    link->previous = link;
    link->next = link;
}

static inline bool list_is_empty(const struct list *head)
{
    return head->next == head;
}

/* True when `link` is in some list. */
static inline bool list_is_linked(const struct list *link)
{
    return link->next != link;
}

/* `link` is in no list: unlinked, or zeroed and never used. */
static inline void list_append(struct list *head, struct list *link)
{
    assert(!link->next || !list_is_linked(link));
    assert(head != link && head->previous->next == head);
    link->previous = head->previous;
    link->next = head;
    head->previous->next = link;
    head->previous = link;
}

/* Harmless when `link` is in no list. */
static inline void list_remove(struct list *link)
{
    if (!list_is_linked(link))
        return;
    assert(link->previous->next == link && link->next->previous == link);
    link->previous->next = link->next;
    link->next->previous = link->previous;
    list_init(link);
}

/* Unlinks and returns the first link, NULL when the list is empty. */
static inline struct list *list_take_first(struct list *head)
{
    struct list *first = head->next;
    if (first == head)
        return NULL;
    list_remove(first);
    return first;
}

/* Moves every link of `from` to the end of `to`. */
static inline void list_append_all(struct list *to, struct list *from)
{
    assert(to != from);
    if (list_is_empty(from))
        return;
    from->next->previous = to->previous;
    from->previous->next = to;
    to->previous->next = from->next;
    to->previous = from->previous;
    list_init(from);
}

#endif
