// Two threads, which the scheduler interrupts all the time, add to one 16-byte number by cmpxchg16b for as many seconds
// as the first argument says. Every addition that the instruction reports as done must be in the sum, and no other.
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

static struct { uint64_t low, high; } __attribute__((aligned(16))) sum;
static volatile int stop;

// add adds one to both halves, and returns how often it had to try.
static uint64_t add(void) {
	uint64_t low = sum.low, high = sum.high, tries = 0;
	unsigned char done;
	do {
		tries++;
		__asm__ volatile("lock cmpxchg16b %1\n\tsetz %0"
			: "=q"(done), "+m"(sum), "+a"(low), "+d"(high)
			: "b"(low + 1), "c"(high + 1) : "cc", "memory");
	} while (!done);
	return tries;
}

struct count { uint64_t added, tries; };

static void *work(void *p) {
	struct count *c = p;
	while (!stop) {
		c->tries += add();
		c->added++;
	}
	return NULL;
}

int main(int argc, char **argv) {
	struct count c[2] = {{0}, {0}};
	pthread_t t[2];
	int seconds = argc > 1 ? atoi(argv[1]) : 10;
	for (int i = 0; i < 2; i++) pthread_create(&t[i], NULL, work, &c[i]);
	struct timespec tick = {0, 1000000}; // a timer of 1 ms: each expiry is an interrupt
	for (time_t end = time(NULL) + seconds; time(NULL) < end;) nanosleep(&tick, NULL);
	stop = 1;
	for (int i = 0; i < 2; i++) pthread_join(t[i], NULL);
	uint64_t added = c[0].added + c[1].added;
	printf("%llu additions in %llu tries, sum %llu and %llu\n", (unsigned long long)added,
		(unsigned long long)(c[0].tries + c[1].tries), (unsigned long long)sum.low, (unsigned long long)sum.high);
	if (sum.low != added || sum.high != added || !added) {
		puts("WRONG");
		return 1;
	}
	return 0;
}
