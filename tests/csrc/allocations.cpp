// Counts what a search allocates between its first number and its last: nothing, since all that it touches lies in an
// arena. Searches each program (problem.h) in every mode, with every loss and every instruction set. Prints a line for
// each that allocates, then how many searches there were.
#include <atomic>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>

#include "problem.h"

namespace {

std::atomic<long> allocations{0};

}  // namespace

// Whoever asks, the C++ library included, asks here.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);

void* malloc(std::size_t size) {
  ++allocations;
  return __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) {
  ++allocations;
  return __libc_calloc(count, size);
}
void* realloc(void* old, std::size_t size) {
  ++allocations;
  return __libc_realloc(old, size);
}
void* aligned_alloc(std::size_t alignment, std::size_t size) {
  ++allocations;
  return __libc_memalign(alignment, size);
}
int posix_memalign(void** result, std::size_t alignment, std::size_t size) {
  ++allocations;
  *result = __libc_memalign(alignment, size);
  return *result ? 0 : 12;
}
}

namespace {

constexpr std::int64_t kImages = 2, kStarts = 3;

void own_loss(const float* y, const float* target, float* g, float* value, int* done) {
  *value = std::fabs(y[0] - target[0]);
  if (g) g[0] = y[0] > target[0] ? 1.0f : -1.0f;
  *done = 1;
}

struct Setting {
  adgan::Weights weights;
  adgan::Loss loss;
  std::int64_t steps;
  adgan::Isa isa;
  bool compact;
};

long allocations_of_search(const adgan::Program& program, const Setting& at) {
  problem::Problem given(program, at.weights, at.steps, at.compact, kImages, kStarts);
  const adgan::SearchSettings settings{at.weights, at.loss, at.steps,
                                       0.25,       5e-5,    0.5,
                                       0.999,      1e-8,    at.loss == adgan::Loss::function ? own_loss : nullptr,
                                       nullptr};
  const adgan::Search search(given.plan, settings, given.theta.data(), given.fixed.data(), adgan::kernels(at.isa));
  adgan::Arena arena(search.arena_floats(at.weights == adgan::Weights::per_sample ? kStarts
                                         : at.weights == adgan::Weights::frozen   ? given.plan.batch
                                                                                  : 1));
  const long before = allocations;
  switch (at.weights) {
    case adgan::Weights::per_seed: search.per_seed(arena, given.pairs, 1, 0, kImages); break;
    case adgan::Weights::per_sample: search.per_sample(arena, given.pairs, 1, adgan::Team()); break;
    case adgan::Weights::frozen: search.frozen(arena, given.pairs, 0, kImages * kStarts); break;
  }
  return allocations - before;
}

}  // namespace

int main() {
  const long before = allocations;
  delete new int(1);  // NOLINT: the counter's own test
  std::free(std::malloc(1));
  if (allocations - before < 1) {
    std::puts("the counter does not count");
    return 2;
  }
  long searches = 0;
  int wrong = 0;
  problem::each_program([&](const std::string& name, const adgan::Program& program) {
    for (int weights = 0; weights < adgan::kWeights; ++weights) {
      for (int loss = 0; loss < adgan::kLosses; ++loss) {
        for (const std::int64_t steps : {0, 3, 9}) {
          for (int isa = 0; isa <= static_cast<int>(adgan::best_isa()); ++isa) {
            for (const bool compact : {false, true}) {
              if (compact && loss > 0) continue;  // the loss knows nothing of the state
              const Setting at{static_cast<adgan::Weights>(weights), static_cast<adgan::Loss>(loss), steps,
                               static_cast<adgan::Isa>(isa), compact};
              const long found = allocations_of_search(program, at);
              ++searches;
              if (found == 0) continue;
              wrong = 1;
              std::printf("%s: %ld allocations with weights %d, loss %d, %d steps, instruction set %d, compact %d\n",
                          name.c_str(), found, weights, loss, static_cast<int>(steps), isa, compact);
            }
          }
        }
      }
    }
  });
  std::printf("%ld searches\n", searches);
  return wrong;
}
