-- The strongest component of each attribute and part.
SELECT attribute, part, arg_max(component, mean_ie) AS component, max(mean_ie) AS mean_ie
FROM ranking
WHERE intervention = 'restore' AND measure = 'target'
GROUP BY ALL
ORDER BY ALL;
