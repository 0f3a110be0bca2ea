/* libmodbus at either end, for tools/bench/modbus: modbus_peer server DEVICE | modbus_peer client DEVICE REQUESTS
 *
 * The client reads 56 registers (the PLC block) so many times, with 1.75 ms of silence between, and prints each round
 * trip in ns on a line of its own.
 */
#include <errno.h>
#include <modbus.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ADDRESS 100
#define COUNT 56
#define SILENCE_NS 1750000

static long long now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (long long)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int serve(modbus_t *line)
{
    static uint16_t regs[256];
    modbus_mapping_t map;
    uint8_t query[MODBUS_RTU_MAX_ADU_LENGTH];
    memset(&map, 0, sizeof map);
    map.nb_registers = 256;
    map.tab_registers = regs;
    for (;;) {
        const int length = modbus_receive(line, query);
        if (length > 0) {
            modbus_reply(line, query, length, &map);
        }
    }
}

static int ask(modbus_t *line, int requests)
{
    const struct timespec silence = {0, SILENCE_NS};
    uint16_t words[COUNT];
    for (int n = 0; n < requests; n++) {
        nanosleep(&silence, NULL);
        const long long begun = now_ns();
        if (modbus_read_registers(line, ADDRESS, COUNT, words) != COUNT) {
            fprintf(stderr, "%s\n", modbus_strerror(errno));
            return 1;
        }
        printf("%lld\n", now_ns() - begun);
    }
    return 0;
}

int main(int count, char **words)
{
    modbus_t *line = count >= 3 ? modbus_new_rtu(words[2], 115200, 'N', 8, 1) : NULL;
    if (line == NULL || modbus_set_slave(line, 1) < 0 || modbus_connect(line) < 0) {
        return 2;
    }
    return strcmp(words[1], "server") == 0 ? serve(line) : ask(line, count > 3 ? atoi(words[3]) : 1000);
}
