/*
 * As much of the client protocol as the C programs need: open, exec, and a query of one number, over a connected socket.
 * spec: client-protocol.
 */
#ifndef WIRE_H
#define WIRE_H

#include "see.h"

/* Largest answer that is read. */
#define ANSWER_MAX_BYTES 65536

/* Type of an answer that is none: the connection has ended. */
#define WIRE_CLOSED (-1)
#define WIRE_FAILURE 0
#define WIRE_DB 4
#define WIRE_RESULT 6
#define WIRE_ROWS 7

static inline int send_all(int socket_, const void *bytes, size_t size)
{
    const char *at = (const char *)bytes;
    while (size > 0) {
        ssize_t sent = send(socket_, at, size, MSG_NOSIGNAL);
        if (sent <= 0) {
            return -1;
        }
        at += sent;
        size -= (size_t)sent;
    }
    return 0;
}

static inline int receive_all(int socket_, void *bytes, size_t size)
{
    char *at = (char *)bytes;
    while (size > 0) {
        ssize_t got = recv(socket_, at, size, 0);
        if (got <= 0) {
            return -1;
        }
        at += got;
        size -= (size_t)got;
    }
    return 0;
}

/* Sends a request: an optional number, a text, more words of zeros. */
static inline int send_request(int socket_, unsigned char type, int has_number, const char *text, size_t zero_words)
{
    unsigned char message[4096];
    size_t text_bytes = (strlen(text) + 8) / 8 * 8;
    size_t body = (has_number ? 8 : 0) + text_bytes + zero_words * 8;
    if (8 + body > sizeof message) {
        return -1;
    }
    memset(message, 0, sizeof message);
    message[0] = (unsigned char)(body / 8);
    message[1] = (unsigned char)(body / 8 >> 8);
    message[4] = type;
    memcpy(message + 8 + (has_number ? 8 : 0), text, strlen(text));
    return send_all(socket_, message, 8 + body);
}

/* Reads one answer; its type, or WIRE_CLOSED. */
static inline int receive_answer(int socket_, unsigned char *body, size_t *size)
{
    unsigned char header[8];
    if (receive_all(socket_, header, sizeof header) != 0) {
        return WIRE_CLOSED;
    }
    *size = ((size_t)header[0] | (size_t)header[1] << 8 | (size_t)header[2] << 16) * 8;
    if (*size > ANSWER_MAX_BYTES || receive_all(socket_, body, *size) != 0) {
        return WIRE_CLOSED;
    }
    return header[4];
}

static inline unsigned long long word_at(const unsigned char *body, size_t at)
{
    unsigned long long word = 0;
    for (size_t byte = 8; byte-- > 0;) {
        word = word << 8 | body[at + byte];
    }
    return word;
}

/* Says hello and opens a database on a connected socket: 0, the code of the failure, or -1. */
static inline int wire_open_database(int client, const char *name)
{
    static const unsigned char hello[8] = {1, 0, 0, 0, 0, 0, 0, 0};
    unsigned char body[ANSWER_MAX_BYTES];
    size_t size = 0;
    if (send_all(client, hello, sizeof hello) != 0 || send_request(client, 3, 0, name, 2) != 0) {
        return -1;
    }
    int type = receive_answer(client, body, &size);
    return type == WIRE_DB ? 0 : type == WIRE_FAILURE ? (int)word_at(body, 0) : -1;
}

static inline int wire_open(int client)
{
    return wire_open_database(client, "test.db");
}

/* Executes: 0, the code of the failure, or -1. */
static inline int wire_exec(int client, const char *sql)
{
    unsigned char body[ANSWER_MAX_BYTES];
    size_t size = 0;
    if (send_request(client, 8, 1, sql, 0) != 0) {
        return -1;
    }
    int type = receive_answer(client, body, &size);
    return type == WIRE_RESULT ? 0 : type == WIRE_FAILURE ? (int)word_at(body, 0) : -1;
}

/* The number that a query of one column named n gives; minus the code of the failure, or -1. */
static inline long long wire_number(int client, const char *sql)
{
    unsigned char body[ANSWER_MAX_BYTES];
    size_t size = 0;
    if (send_request(client, 9, 1, sql, 0) != 0) {
        return -1;
    }
    int type = receive_answer(client, body, &size);
    return type == WIRE_ROWS && size >= 32 ? (long long)word_at(body, 24) : type == WIRE_FAILURE ? -(long long)word_at(body, 0) : -1;
}

/* A client of an abstract address with "test.db" open; -1 if there is none. */
static inline int wire_client(const char *address)
{
    int client = dial(address);
    if (client >= 0 && wire_open(client) != 0) {
        close(client);
        return -1;
    }
    return client;
}

#endif
